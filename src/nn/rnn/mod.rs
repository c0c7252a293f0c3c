//! GRU and LSTM as PyTorch defines them: several layers, one or both directions, sequences of different lengths.
//!
//! With a frame `x`, the state `h`, the sigmoid σ and the element-wise product ⊙ (Cho et al. 2014, arXiv 1406.1078;
//! Hochreiter and Schmidhuber 1997; in the forms of `torch.nn.GRU` and `LSTM`, which have two biases and apply `r`
//! after the product):
//!
//! | GRU, rows of weights in the order r, z, n | LSTM, in the order i, f, g, o |
//! |---|---|
//! | `r = σ(W_ir x + b_ir + W_hr h + b_hr)` | `i, f, o = σ(W_i* x + b_i* + W_h* h + b_h*)` |
//! | `z = σ(W_iz x + b_iz + W_hz h + b_hz)` | `g = tanh(W_ig x + b_ig + W_hg h + b_hg)` |
//! | `n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))` | `c' = f ⊙ c + i ⊙ g` |
//! | `h' = (1 − z) ⊙ n + z ⊙ h` | `h' = o ⊙ tanh(c')` |

mod cpu;
mod device;
mod scan;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::kernels::rnn::Gates;
use super::ops::runs_on_cpu_kernels;
use crate::check::{self, MAX_WIDTH, check_lengths};
use crate::error::{Context, Result};
use crate::weights::{Init, Loader};

/// The recurrent cell of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Gated recurrent unit.
    Gru,
    /// Long short-term memory.
    Lstm,
}

impl Cell {
    /// Rows of weights per hidden unit: 3 for GRU, 4 for LSTM.
    pub fn n_gates(self) -> usize {
        self.gates().count()
    }

    fn gates(self) -> Gates {
        match self {
            Self::Gru => Gates::Gru,
            Self::Lstm => Gates::Lstm,
        }
    }
}

/// The configuration of an [`Rnn`]: PyTorch's `input_size`, `hidden_size`, `num_layers`, `bidirectional`, `bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RnnConfig {
    /// GRU or LSTM.
    pub cell: Cell,
    /// Input size, 1 to 65,536.
    pub inputs: usize,
    /// Hidden size of one direction of a layer, 1 to 65,536.
    pub hidden: usize,
    /// Number of stacked layers, 1 to 64.
    pub n_layers: usize,
    /// Whether each layer also runs from the last frame to the first.
    pub bidirectional: bool,
    /// Whether the layers have biases.
    pub bias: bool,
}

/// Maximum number of layers.
const MAX_LAYERS: usize = 64;

impl RnnConfig {
    /// Number of directions, 1 or 2.
    pub fn n_directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    /// Output size: `hidden` times the number of directions.
    pub fn outputs(&self) -> usize {
        self.hidden.saturating_mul(self.n_directions())
    }

    fn validate(&self) -> Result<()> {
        check::sizes([
            ("inputs", self.inputs, MAX_WIDTH),
            ("hidden", self.hidden, MAX_WIDTH),
            ("n_layers", self.n_layers, MAX_LAYERS),
        ])
    }
}

/// The state of a recurrent network between calls. Layer `l`, direction `d` (1 is backward) is at index `l ·
/// n_directions + d`.
#[derive(Debug, Clone)]
pub struct RnnState {
    /// Hidden states, `[n_layers · n_directions, batch, hidden]`.
    pub h: Tensor,
    /// Cell states of an LSTM, in the same shape.
    pub c: Option<Tensor>,
}

/// A recurrent network.
///
/// Weights that are [`Var`](candle_core::Var)s, or computed from them, stay as they are and run through differentiable
/// operations, so that gradients reach them and updates take effect. Inputs that need gradients also take this path.
/// Everything else on the CPU uses the kernels; their results for a sequence depend neither on the batch nor on the
/// number of threads.
#[derive(Debug)]
pub struct Rnn {
    config: RnnConfig,
    /// Weights by layer and direction.
    layers: Vec<Vec<DirectionWeights>>,
    /// The same weights packed for the kernels, if these can take every tensor. The tensors then serve inputs that need
    /// gradients.
    packed: Option<cpu::Packed>,
}

/// The weights of one direction of a layer.
#[derive(Debug)]
struct DirectionWeights {
    names: [String; 4],
    input: Tensor,                    // [gates · hidden, inputs]
    recurrent: Tensor,                // [gates · hidden, hidden]
    biases: Option<(Tensor, Tensor)>, // [gates · hidden]
}

impl Rnn {
    /// Reads `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, the same with `_reverse`, then `_l1` and so on.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a size out of range, otherwise as [`Loader::get`]. Missing or
    /// misshapen tensors are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, config: RnnConfig) -> Result<Self> {
        let init = Init::of_fan_in(config.hidden);
        Self::new(config, |name, shape| weights.parameter(name, shape, init))
    }

    /// As [`load`](Self::load), with each layer as a separate network, so that dropout can be put between them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_layers(weights: &Loader, config: RnnConfig) -> Result<Vec<Self>> {
        config.validate()?;
        let init = Init::of_fan_in(config.hidden);
        let layer = |index: usize| {
            let inputs = if index == 0 { config.inputs } else { config.outputs() };
            let name = |name: &str| name.replacen("_l0", &format!("_l{index}"), 1);
            Self::new(RnnConfig { inputs, n_layers: 1, ..config }, |tensor, shape| {
                weights.parameter(&name(tensor), shape, init)
            })
        };
        (0..config.n_layers).map(layer).collect()
    }

    /// Creates a network from the tensors that `parameter` returns for a name, such as `weight_ih_l0`, and a shape. All
    /// must be f32 and on one device.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) as [`load`](Self::load), any error of `parameter`,
    /// [`Error::Tensor`](crate::Error::Tensor) for a tensor of the wrong shape.
    pub fn new(config: RnnConfig, mut parameter: impl FnMut(&str, &[usize]) -> Result<Tensor>) -> Result<Self> {
        config.validate()?;
        let rows = config.cell.n_gates() * config.hidden;
        let mut layers = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let inputs = if layer == 0 { config.inputs } else { config.outputs() };
            let mut directions = Vec::with_capacity(config.n_directions());
            for suffix in ["", "_reverse"].into_iter().take(config.n_directions()) {
                let names =
                    ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|name| format!("{name}_l{layer}{suffix}"));
                let mut get = |name: &str, shape: &[usize]| {
                    let tensor = parameter(name, shape)?;
                    let wrong = || {
                        candle_core::Error::Msg(format!("{name}: expected shape {shape:?}, got {:?}", tensor.dims()))
                    };
                    if tensor.dims() == shape { Ok(tensor) } else { Err(wrong()).context("creating a recurrent layer") }
                };
                let (input, recurrent) = (get(&names[0], &[rows, inputs])?, get(&names[1], &[rows, config.hidden])?);
                let biases =
                    if config.bias { Some((get(&names[2], &[rows])?, get(&names[3], &[rows])?)) } else { None };
                directions.push(DirectionWeights { names, input, recurrent, biases });
            }
            layers.push(directions);
        }
        let mut rnn = Self { config, layers, packed: None };
        if rnn.parameters().all(|(_, tensor)| runs_on_cpu_kernels(tensor)) {
            rnn.packed = Some(rnn.pack().context("packing the weights of a recurrent layer")?);
        }
        Ok(rnn)
    }

    /// The configuration of the network.
    pub fn config(&self) -> &RnnConfig {
        &self.config
    }

    /// The names and tensors of all weights.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.layers.iter().flatten().flat_map(|direction| {
            let biases = direction.biases.iter().flat_map(|(input, recurrent)| [input, recurrent]);
            direction
                .names
                .iter()
                .map(String::as_str)
                .zip([&direction.input, &direction.recurrent].into_iter().chain(biases))
        })
    }

    /// Runs the network on `x` `[batch, n_frames, inputs]`. Returns the frames of the last layer, `[batch, n_frames,
    /// outputs]` with the forward direction in the first half, and the state after the last frame of each sequence (for
    /// the backward direction, after the first).
    ///
    /// With `lengths`, only the first `lengths[b]` frames of sequence `b` count: the backward direction starts at the
    /// last of them, and the output beyond is zero (PyTorch's packed sequences). `state` is the initial state, zeros by
    /// default. To continue a stream in a unidirectional network, pass the state that the previous call returned.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless there is one length of 1 to `n_frames` per sequence,
    /// [`Error::Tensor`](crate::Error::Tensor) if a shape or the device does not match.
    pub fn forward(
        &self,
        x: &Tensor,
        lengths: Option<&[usize]>,
        state: Option<&RnnState>,
    ) -> Result<(Tensor, RnnState)> {
        self.run(x, lengths, state).context("running a recurrent layer")
    }

    fn run(&self, x: &Tensor, lengths: Option<&[usize]>, state: Option<&RnnState>) -> Result<(Tensor, RnnState)> {
        let (batch, n_frames, inputs) = x.dims3()?;
        if inputs != self.config.inputs || batch == 0 || n_frames == 0 {
            let reason = format!("expected shape [batch, n_frames, {}], got {:?}", self.config.inputs, x.dims());
            return Err(candle_core::Error::Msg(reason).into());
        }
        if let Some(lengths) = lengths {
            check_lengths(lengths, batch, 1..=n_frames)?;
        }
        let all = vec![n_frames; batch];
        let lengths = lengths.unwrap_or(&all);
        let from_zeros = state.is_none();
        let state = self.start(batch, x.device(), state)?;
        let scans = self.config.cell == Cell::Gru && x.device().is_cpu() && x.dtype() == DType::F32;
        let on_cpu = [x, &state.h].into_iter().chain(&state.c).all(runs_on_cpu_kernels);
        Ok(match &self.packed {
            Some(packed) if on_cpu => self.on_cpu(packed, x, lengths, &state)?,
            _ if from_zeros && scans => self.scanned(x, lengths)?,
            _ => self.on_device(x, lengths, &state)?,
        })
    }

    /// The initial state, checked.
    fn start(&self, batch: usize, device: &Device, state: Option<&RnnState>) -> candle_core::Result<RnnState> {
        let RnnConfig { cell, hidden, n_layers, .. } = self.config;
        let shape = (n_layers * self.config.n_directions(), batch, hidden);
        let has_cells = cell == Cell::Lstm;
        let Some(state) = state else {
            let h = Tensor::zeros(shape, DType::F32, device)?;
            return Ok(RnnState { c: has_cells.then(|| h.clone()), h });
        };
        let fits = |tensor: &Tensor| tensor.dims3().is_ok_and(|dims| dims == shape) && tensor.dtype() == DType::F32;
        if !fits(&state.h) || has_cells != state.c.is_some() || !state.c.iter().all(fits) {
            let expected = if has_cells { "h and c" } else { "h alone" };
            let got = (state.h.shape(), state.c.as_ref().map(Tensor::shape));
            let reason = format!("expected a state with {expected} of shape {shape:?} in f32, got h and c of {got:?}");
            return Err(candle_core::Error::Msg(reason));
        }
        Ok(state.clone())
    }
}
