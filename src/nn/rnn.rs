//! GRU and LSTM as PyTorch defines them: several layers, one or both directions, sequences of any lengths.
//!
//! With `x` a frame, `h` the state, σ the sigmoid, ⊙ the product of elements (Cho et al. 2014, arXiv 1406.1078; Hochreiter
//! and Schmidhuber 1997; the forms with two biases and with `r` outside the product, of `torch.nn.GRU` and `LSTM`):
//!
//! | GRU, rows of weights in the order r, z, n | LSTM, in the order i, f, g, o |
//! |---|---|
//! | `r = σ(W_ir x + b_ir + W_hr h + b_hr)` | `i, f, o = σ(W_i* x + b_i* + W_h* h + b_h*)` |
//! | `z = σ(W_iz x + b_iz + W_hz h + b_hz)` | `g = tanh(W_ig x + b_ig + W_hg h + b_hg)` |
//! | `n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))` | `c' = f ⊙ c + i ⊙ g` |
//! | `h' = (1 − z) ⊙ n + z ⊙ h` | `h' = o ⊙ tanh(c')` |

use candle_core::{D, DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::kernels::matmul::linear::PackedMatrix;
use super::kernels::rnn::{self as kernel, Gates};
use super::kernels::simd::isa::Isa;
use super::ops::{runs_on_cpu_kernels, train};
use crate::check::check_lengths;
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Result};
use crate::weights::{Init, Loader};

/// The recurrence of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Gated recurrent unit.
    Gru,
    /// Long short-term memory.
    Lstm,
}

impl Cell {
    /// Rows of weights per hidden value: 3 or 4.
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

/// The sizes of an [`Rnn`]: PyTorch's `input_size`, `hidden_size`, `num_layers`, `bidirectional`, `bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RnnConfig {
    /// GRU or LSTM.
    pub cell: Cell,
    /// Length of a frame, 1 to 65,536.
    pub inputs: usize,
    /// Length of the state of one direction of a layer, 1 to 65,536.
    pub hidden: usize,
    /// Layers, 1 to 64; each reads the frames that the one before gives.
    pub n_layers: usize,
    /// Whether each layer also has a direction that goes from the last frame to the first.
    pub bidirectional: bool,
    /// Whether there are biases.
    pub bias: bool,
}

/// The most recurrent layers.
const MAX_LAYERS: usize = 64;

impl RnnConfig {
    /// 1 or 2.
    pub fn n_directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    /// Length of an output frame: `hidden` of each direction.
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

/// What a recurrent net remembers between calls. Layer `l`, direction `d` (1 is backward) is at `l · n_directions + d`.
#[derive(Debug, Clone)]
pub struct RnnState {
    /// `[n_layers · n_directions, batch, hidden]`.
    pub h: Tensor,
    /// The cells of an LSTM, in the same shape.
    pub c: Option<Tensor>,
}

/// A recurrent net.
///
/// Weights that are [`Var`](candle_core::Var)s, or computed from them, are used as they are through differentiable operations,
/// so that gradients reach them and their updates count; so is an input that gradients must reach. All else on the CPU goes
/// through kernels, whose results for a sequence do not depend on the batch nor on the number of threads.
#[derive(Debug)]
pub struct Rnn {
    config: RnnConfig,
    /// Per layer, per direction.
    layers: Vec<Vec<Parameters>>,
    /// The same for the kernels.
    packed: Option<Vec<Vec<kernel::Direction>>>,
}

/// The weights of one direction of a layer.
#[derive(Debug)]
struct Parameters {
    names: [String; 4],
    input: Tensor,                    // [gates · hidden, inputs]
    recurrent: Tensor,                // [gates · hidden, hidden]
    biases: Option<(Tensor, Tensor)>, // [gates · hidden]
}

impl Rnn {
    /// Reads `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, the same with `_reverse`, then `_l1` and so on.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a size that is 0 or beyond all use, else as [`Loader::get`]; tensors that do not fit are
    /// reported by [`Loader::finish`].
    pub fn load(weights: &Loader, config: RnnConfig) -> Result<Self> {
        let init = Init::of_fan_in(config.hidden);
        Self::new(config, |name, shape| weights.parameter(name, shape, init))
    }

    /// From tensors that `parameter` gives for a name, such as `weight_ih_l0`, and a shape. All f32, on one device.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) as [`load`](Self::load), those of `parameter`, [`Error::Tensor`](crate::Error::Tensor) for a tensor of another shape.
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
                    let wrong = || candle_core::Error::Msg(format!("{name} is {:?}, not {shape:?}", tensor.dims()));
                    if tensor.dims() == shape { Ok(tensor) } else { Err(wrong()).context("making a recurrent layer") }
                };
                let (input, recurrent) = (get(&names[0], &[rows, inputs])?, get(&names[1], &[rows, config.hidden])?);
                let biases =
                    if config.bias { Some((get(&names[2], &[rows])?, get(&names[3], &[rows])?)) } else { None };
                directions.push(Parameters { names, input, recurrent, biases });
            }
            layers.push(directions);
        }
        let mut rnn = Self { config, layers, packed: None };
        let fixed = |tensor: &Tensor| runs_on_cpu_kernels(tensor) && !tensor.track_op();
        if rnn.parameters().all(|(_, tensor)| fixed(tensor)) {
            rnn.packed = Some(rnn.pack().context("packing the weights of a recurrent layer")?);
        }
        Ok(rnn)
    }

    /// The sizes.
    pub fn config(&self) -> &RnnConfig {
        &self.config
    }

    /// Names and weights.
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

    /// `x` `[batch, n_frames, inputs]` to frames `[batch, n_frames, outputs]`, those of the last layer, with the forward
    /// direction in the first half, and the states after the last frame of each sequence (backward: after its first).
    ///
    /// With `lengths`, only the first `lengths[b]` frames of sequence `b` count: the backward direction starts at the last of
    /// them, and frames beyond come out as zeros (PyTorch's packed sequences). `state` is what to start from, zeros without
    /// it: give what the call before returned to go on with a stream, in a net that is not bidirectional.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless there is one length from 1 to `n_frames` a sequence, [`Error::Tensor`](crate::Error::Tensor) if a shape or device
    /// does not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        lengths: Option<&[usize]>,
        state: Option<&RnnState>,
    ) -> Result<(Tensor, RnnState)> {
        let context = "a recurrent layer";
        let (batch, n_frames, inputs) = x.dims3().context(context)?;
        if inputs != self.config.inputs || batch == 0 || n_frames == 0 {
            let reason = format!("[batch, n_frames, {}] is wanted, not {:?}", self.config.inputs, x.dims());
            return Err(candle_core::Error::Msg(reason)).context(context);
        }
        if let Some(lengths) = lengths {
            check_lengths(lengths, batch, 1..=n_frames)?;
        }
        let all = vec![n_frames; batch];
        let lengths = lengths.unwrap_or(&all);
        let from_zeros = state.is_none();
        let state = self.start(batch, x.device(), state).context(context)?;
        let follows = x.track_op() || state.h.track_op();
        let scans = self.config.cell == Cell::Gru && x.device().is_cpu() && x.dtype() == DType::F32;
        match &self.packed {
            Some(packed) if runs_on_cpu_kernels(x) && !follows => self.on_cpu(packed, x, lengths, &state),
            _ if from_zeros && scans => self.scanned(x, lengths),
            _ => self.on_device(x, lengths, &state),
        }
        .context(context)
    }

    /// The state to start from, checked.
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
            let wanted = if has_cells { "h and c" } else { "h" };
            return Err(candle_core::Error::Msg(format!("a state with {wanted} of shape {shape:?} is wanted")));
        }
        Ok(state.clone())
    }

    fn pack(&self) -> candle_core::Result<Vec<Vec<kernel::Direction>>> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let pack = |weight: &Tensor, bias: Option<&Tensor>| {
            let packed = PackedMatrix::pack(&values(weight)?, weight.dim(1)?, weight.dim(0)?);
            Ok::<_, candle_core::Error>(match bias {
                Some(bias) => packed.with_bias(&values(bias)?),
                None => packed,
            })
        };
        let direction = |direction: &Parameters| {
            let (input_bias, recurrent_bias) = direction.biases.as_ref().map(|(a, b)| (a, b)).unzip();
            let input = pack(&direction.input, input_bias)?;
            Ok(kernel::Direction { input, recurrent: pack(&direction.recurrent, recurrent_bias)? })
        };
        self.layers.iter().map(|directions| directions.iter().map(direction).collect()).collect()
    }

    fn on_cpu(
        &self,
        packed: &[Vec<kernel::Direction>],
        x: &Tensor,
        lengths: &[usize],
        state: &RnnState,
    ) -> candle_core::Result<(Tensor, RnnState)> {
        let (batch, n_frames, _) = x.dims3()?;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let mut x = values(x)?;
        let mut h = values(&state.h)?;
        let mut c = state.c.as_ref().map(values).transpose()?.unwrap_or_default();
        let of_layer = self.config.outputs() * batch;
        for (layer, directions) in packed.iter().enumerate() {
            let mut y = vec![0.0; of_layer * n_frames];
            let cells = if c.is_empty() { &mut [][..] } else { &mut c[layer * of_layer..][..of_layer] };
            let states = (&mut h[layer * of_layer..][..of_layer], cells);
            kernel::layer(self.config.cell.gates(), directions, &x, lengths, states, &mut y, Isa::best());
            x = y;
        }
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, state.h.shape(), &Device::Cpu);
        let state = RnnState { h: tensor(h)?, c: state.c.as_ref().map(|_| tensor(c)).transpose()? };
        Ok((Tensor::from_vec(x, (batch, n_frames, self.config.outputs()), &Device::Cpu)?, state))
    }

    /// A GRU from a state of zeros on the CPU, differentiable: per direction, one product of all frames, then one operation.
    fn scanned(&self, x: &Tensor, lengths: &[usize]) -> candle_core::Result<(Tensor, RnnState)> {
        let (batch, n_frames, _) = x.dims3()?;
        let hidden = self.config.hidden;
        let (mut x, mut states) = (x.clone(), Vec::new());
        for directions in &self.layers {
            let frames = x.contiguous()?.flatten(0, 1)?; // [batch · n_frames, inputs]
            let mut outputs = Vec::with_capacity(directions.len());
            for (direction, backward) in directions.iter().zip([false, true]) {
                let mut products = frames.matmul(&direction.input.t()?)?;
                let mut bias = Tensor::zeros(3 * hidden, DType::F32, x.device())?;
                if let Some((of_input, of_state)) = &direction.biases {
                    (products, bias) = (products.broadcast_add(of_input)?, of_state.clone());
                }
                let products = products.reshape((batch, n_frames, 3 * hidden))?;
                let y = train::gru(&products, &direction.recurrent, &bias, lengths, backward)?;
                let last =
                    |(row, &length): (usize, &usize)| (row * n_frames + if backward { 0 } else { length - 1 }) as u32;
                let last = Tensor::from_iter(lengths.iter().enumerate().map(last), x.device())?;
                states.push(y.flatten(0, 1)?.index_select(&last, 0)?);
                outputs.push(y);
            }
            x = Tensor::cat(&outputs, D::Minus1)?;
        }
        Ok((x, RnnState { h: Tensor::stack(&states, 0)?, c: None }))
    }

    /// Frame by frame with candle's operations: on any device, and differentiable.
    fn on_device(&self, x: &Tensor, lengths: &[usize], state: &RnnState) -> candle_core::Result<(Tensor, RnnState)> {
        // Frames by themselves: gradients of slices of one tensor would each be as large as that.
        let mut x =
            (0..x.dim(1)?).map(|frame| x.narrow(1, frame, 1)?.squeeze(1)).collect::<candle_core::Result<Vec<_>>>()?;
        let (mut h, mut c) = (Vec::new(), Vec::new());
        for (layer, directions) in self.layers.iter().enumerate() {
            let mut outputs = Vec::with_capacity(directions.len());
            for (i, direction) in directions.iter().enumerate() {
                let place = layer * directions.len() + i;
                let cells = state.c.as_ref().map(|c| c.get(place)).transpose()?;
                let (y, last, cells) = self.direction(direction, &x, lengths, i == 1, (state.h.get(place)?, cells))?;
                outputs.push(y);
                h.push(last);
                c.extend(cells);
            }
            let frame = |i: usize| {
                let parts: Vec<&Tensor> = outputs.iter().map(|frames: &Vec<Tensor>| &frames[i]).collect();
                Tensor::cat(&parts, D::Minus1)
            };
            x = (0..x.len()).map(frame).collect::<candle_core::Result<_>>()?;
        }
        let x = Tensor::stack(&x, 1)?;
        let c = if c.is_empty() { None } else { Some(Tensor::stack(&c, 0)?) };
        Ok((x, RnnState { h: Tensor::stack(&h, 0)?, c }))
    }

    /// One direction of a layer: its frames, its state and its cells, all `[batch, hidden]`.
    fn direction(
        &self,
        weights: &Parameters,
        frames: &[Tensor],
        lengths: &[usize],
        backward: bool,
        (mut h, mut c): (Tensor, Option<Tensor>),
    ) -> candle_core::Result<(Vec<Tensor>, Tensor, Option<Tensor>)> {
        let (batch, n_frames) = (lengths.len(), frames.len());
        let input = weights.input.t()?.contiguous()?;
        let recurrent = weights.recurrent.t()?.contiguous()?;
        let mut outputs = Vec::with_capacity(n_frames);
        for step in 0..n_frames {
            let frame = if backward { n_frames - 1 - step } else { step };
            let mut x = frames[frame].contiguous()?.matmul(&input)?; // [batch, gates · hidden]
            if let Some((bias, _)) = &weights.biases {
                x = x.broadcast_add(bias)?;
            }
            let mut s = h.matmul(&recurrent)?; // [batch, gates · hidden]
            if let Some((_, bias)) = &weights.biases {
                s = s.broadcast_add(bias)?;
            }
            let (new_h, new_c) = self.step(&x, &s, &h, c.as_ref())?;
            if lengths.iter().all(|&length| frame < length) {
                outputs.push(new_h.clone());
                (h, c) = (new_h, new_c);
                continue;
            }
            // Beyond its end a sequence keeps its state and gives zeros.
            let counts = lengths.iter().map(|&length| u8::from(frame < length));
            let counts = Tensor::from_iter(counts, x.device())?.reshape((batch, 1))?.broadcast_as(h.shape())?;
            outputs.push(counts.where_cond(&new_h, &new_h.zeros_like()?)?);
            h = counts.where_cond(&new_h, &h)?;
            c = match (new_c, c) {
                (Some(new_c), Some(c)) => Some(counts.where_cond(&new_c, &c)?),
                _ => None,
            };
        }
        if backward {
            outputs.reverse();
        }
        Ok((outputs, h, c))
    }

    /// One step: `x` and `s` `[batch, gates · hidden]` are the products of frame and state with the weights.
    fn step(
        &self,
        x: &Tensor,
        s: &Tensor,
        h: &Tensor,
        c: Option<&Tensor>,
    ) -> candle_core::Result<(Tensor, Option<Tensor>)> {
        let hidden = self.config.hidden;
        let part = |tensor: &Tensor, gate: usize| tensor.narrow(1, gate * hidden, hidden)?.contiguous();
        let sum = |gate: usize| part(x, gate)? + part(s, gate)?;
        let sigmoid = |tensor: &Tensor| candle_nn::ops::sigmoid(tensor);
        match c {
            None => {
                let (reset, keep) = (sigmoid(&sum(0)?)?, sigmoid(&sum(1)?)?);
                let new = (part(x, 2)? + (reset * part(s, 2)?)?)?.tanh()?;
                Ok((((h - &new)? * keep)?.add(&new)?, None))
            }
            Some(c) => {
                let (input, forget, output) = (sigmoid(&sum(0)?)?, sigmoid(&sum(1)?)?, sigmoid(&sum(3)?)?);
                let c = ((forget * c)? + (input * sum(2)?.tanh()?)?)?;
                Ok(((output * c.tanh()?)?, Some(c)))
            }
        }
    }
}
