//! Stacks of convolutions and the layers between them.

use candle_core::Tensor;

use super::batch_norm::EPS;
use super::conv::{Conv, ConvConfig, Maps};
use super::dynamic::{self, DynamicBlock};
use super::kernels::blocked::{SNAKE_EPS, Shape};
use super::kernels::conv::Input;
use super::kernels::conv::stream::{Step, stream};
use super::kernels::simd::isa::Isa;
use super::kernels::workspace::Workspace;
use super::map::{FeatureMap, Values, with_planes};
use super::ops::runs_on_cpu_kernels;
use super::pool::Pool;
use super::{Activation, BatchNorm, Dropout, Linear, LpPool2d};
use crate::check::{self, MAX_WIDTH, check_lengths};
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader};

/// Convolutions and the layers between them, on maps `[batch, channels, height, width]` or on sequences `[batch,
/// channels, length]`. A single convolution is a stack of one.
///
/// On the CPU, values stay in the kernels' layout, blocks of sixteen channels, from the first layer to the last, and
/// memory is reused between calls.
///
/// ```
/// use clipwise::candle_core::{DType, Device, Tensor};
/// use clipwise::nn::{Activation, ConvConfig, ConvStack, Pool1d};
/// use clipwise::weights::Parameters;
///
/// let parameters = Parameters::new(&Device::Cpu, 1);
/// let loader = parameters.loader();
/// let mut convs = ConvStack::on_sequences();
/// let first = ConvConfig { stride: 4, bias: true, ..ConvConfig::new(1, 16, 8) };
/// convs.conv(&loader.at("conv1"), Some(&loader.at("bn1")), first, Activation::Relu)?;
/// convs.pool(Pool1d { size: 4, padding: 0 });
/// convs.conv(&loader.at("conv2"), None, ConvConfig::new(16, 32, 3), Activation::Relu)?;
///
/// let x = Tensor::zeros((2, 1, 200), DType::F32, &Device::Cpu)?;
/// assert_eq!(convs.forward(&x)?.dims(), [2, 32, 10]);
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Debug)]
pub struct ConvStack {
    /// Properties of the maps after the last layer.
    maps: Maps,
    layers: Vec<Layer>,
    workspace: Workspace,
}

#[derive(Debug)]
enum Layer {
    Conv(Box<Conv>, Option<Pool>),
    Pool(Pool),
    LpPool(LpPool2d),
    BatchNorm(BatchNorm, Activation),
    Dropout(Dropout),
    Activation(Activation),
    Snake(Tensor), // [1, channels, 1]
    Reflect {
        kernel: usize,
        stride: usize,
    },
    /// Multiplies each channel by a gate that these layers compute from the means of all channels.
    SqueezeExcitation(Box<[Linear; 2]>),
    /// Repeats each channel this many times.
    Repeat(usize),
    Dynamic(Box<dynamic::Block>),
    Residual(Box<Residual>),
    EndOfStage,
}

/// The sum of two branches, followed by an activation.
#[derive(Debug)]
struct Residual {
    layers: Vec<Layer>,
    /// Layers of the shortcut branch; none for the identity.
    shortcut: Vec<Layer>,
    activation: Activation,
}

impl ConvStack {
    /// An empty stack on maps. If their `width` (mel bins, in a spectrogram) is given, layers on maps of 1 or 2 columns
    /// need fewer products, but then reject maps of any other width.
    pub fn on_maps(width: Option<usize>) -> Self {
        let maps = Maps { are_sequences: false, width, swapped_filters: false, norm_eps: EPS };
        Self { maps, layers: Vec::new(), workspace: Workspace::shared() }
    }

    /// An empty stack on sequences.
    pub fn on_sequences() -> Self {
        let mut stack = Self::on_maps(Some(1));
        stack.maps.are_sequences = true;
        stack
    }

    /// Sets the ε of the batch norms in layers that are added later. The default is 1e-5.
    #[must_use]
    pub fn with_norm_eps(mut self, eps: f64) -> Self {
        self.maps.norm_eps = eps;
        self
    }

    /// Reads the filters of layers that are added later as `[out, in, columns, rows]`, for checkpoints of models whose
    /// maps are transposed. No effect on sequences.
    #[must_use]
    pub fn with_swapped_filters(mut self) -> Self {
        self.maps.swapped_filters = !self.maps.are_sequences;
        self
    }

    /// Adds a convolution, a batch norm if `norm` is given, and an activation. Reads the `weight` `[out, in / groups,
    /// kernel, kernel]`, or `[out, in / groups, kernel]` on sequences, and the `bias` `[out]` if the configuration has
    /// one.
    ///
    /// # Errors
    /// [`Error::Config`] for a size out of range, otherwise as [`Loader::get`] and [`BatchNorm::load`].
    pub fn conv(
        &mut self,
        conv: &Loader,
        norm: Option<&Loader>,
        config: ConvConfig,
        activation: Activation,
    ) -> Result<()> {
        let conv = Conv::load(conv, norm, config, activation, self.maps)?;
        self.maps.width = self.maps.width.and_then(|width| Some(conv.shape.output(conv.shape.kernel.0, width)?.1));
        self.layers.push(Layer::Conv(Box::new(conv), None));
        Ok(())
    }

    /// Adds a pooling: a [`Pool2d`](super::Pool2d) or a [`Pool1d`](super::Pool1d). A sequence is a map of one column.
    pub fn pool(&mut self, pool: impl Into<Pool>) {
        let pool = pool.into();
        self.narrow(pool.window.size.1);
        match self.layers.last_mut() {
            // Fused into the convolution's kernel.
            Some(Layer::Conv(_, after @ None)) => *after = Some(pool),
            _ => self.layers.push(Layer::Pool(pool)),
        }
    }

    /// Adds a power-average pooling.
    pub fn lp_pool(&mut self, pool: LpPool2d) {
        self.narrow(pool.size.1);
        self.layers.push(Layer::LpPool(pool));
    }

    /// Adds a batch norm over the channels that does not follow a convolution, and an activation: see
    /// [`BatchNorm::load_channels_first`].
    ///
    /// # Errors
    /// As [`BatchNorm::load`].
    pub fn batch_norm(&mut self, norm: &Loader, channels: usize, activation: Activation) -> Result<()> {
        self.layers.push(Layer::BatchNorm(BatchNorm::load_with(norm, channels, 1, self.maps.norm_eps)?, activation));
        Ok(())
    }

    /// Adds a dropout.
    pub fn dropout(&mut self, dropout: Dropout) {
        self.layers.push(Layer::Dropout(dropout));
    }

    /// Adds the layers that `add` adds, with a residual connection around them: their input, each channel repeated
    /// `repeats` times, is added to their output, which must have the same shape.
    ///
    /// # Errors
    /// Any error of `add`.
    pub fn residual(&mut self, repeats: usize, add: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let connect = |stack: &mut Self| {
            if repeats != 1 {
                stack.layers.push(Layer::Repeat(repeats));
            }
            Ok(())
        };
        self.shortcut(connect, add)
    }

    /// As [`residual`](Self::residual), with the layers that `connect` adds on the shortcut: their output is added to
    /// that of the main branch.
    ///
    /// # Errors
    /// Any error of `connect` or `add`.
    pub fn shortcut(
        &mut self,
        connect: impl FnOnce(&mut Self) -> Result<()>,
        add: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let (before, width) = (std::mem::take(&mut self.layers), self.maps.width);
        let connected = connect(self);
        let shortcut = std::mem::take(&mut self.layers);
        self.maps.width = width;
        let added = add(self);
        let layers = std::mem::replace(&mut self.layers, before);
        let activation = Activation::Identity;
        self.layers.push(Layer::Residual(Box::new(Residual { layers, shortcut, activation })));
        connected.and(added)
    }

    /// Adds an activation that does not follow a convolution. The activation of a convolution is an argument of
    /// [`conv`](Self::conv).
    pub fn activation(&mut self, activation: Activation) {
        match self.layers.last_mut() {
            Some(Layer::Residual(sum)) if sum.activation == Activation::Identity => sum.activation = activation,
            _ => self.layers.push(Layer::Activation(activation)),
        }
    }

    /// Adds the Snake activation, `x + sin²(α x) / α` with an α per channel (Ziyin et al. 2020, arXiv 2006.08195).
    /// Reads `alpha` `[1, channels, 1]`; in training it starts at 1.
    ///
    /// # Errors
    /// As [`Loader::get`].
    pub fn snake(&mut self, weights: &Loader, channels: usize) -> Result<()> {
        self.layers.push(Layer::Snake(weights.parameter("alpha", (1, channels, 1), Init::Constant(1.0))?));
        Ok(())
    }

    /// Adds the padding of SEANet (EnCodec, Défossez et al. 2022, arXiv 2210.13438) for the convolution `config` that
    /// follows, which must have no padding of its own. The sequence is mirrored at its ends so that the convolution
    /// gives one output per `stride` positions, the last of which may be incomplete. If the padding is odd, the
    /// beginning gets one position more than the end; the end also gets the positions that complete the last window. A
    /// sequence too short to be mirrored is first followed by zeros.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes out of range, for a `stride` above the positions that the kernel covers, and on
    /// maps.
    pub fn reflect_pad(&mut self, config: &ConvConfig) -> Result<()> {
        let (kernel, stride) = (config.extent(), config.stride);
        check::size("kernel", kernel, MAX_WIDTH)?;
        if !(1..=kernel).contains(&stride) || !self.maps.are_sequences {
            let reason =
                format!("expected 1 to {kernel}, the positions that the kernel covers, and a stack on sequences");
            return Err(Error::config("stride", stride, reason));
        }
        self.layers.push(Layer::Reflect { kernel, stride });
        Ok(())
    }

    /// Adds a squeeze-and-excitation (Hu et al. 2017, arXiv 1709.01507): the means of the channels go through a fully
    /// connected layer of `squeezed` outputs with ReLU and one with activation `gate`, whose outputs multiply the
    /// channels. Reads `weight` and `bias` of both layers.
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub fn squeeze_excitation(
        &mut self,
        [fc1, fc2]: [&Loader; 2],
        channels: usize,
        squeezed: usize,
        gate: Activation,
    ) -> Result<()> {
        let fc1 = Linear::load(&fc1.clone().in_f32(), channels, squeezed, Activation::Relu)?;
        let fc2 = Linear::load(&fc2.clone().in_f32(), squeezed, channels, gate)?;
        self.gates([fc1, fc2]);
        Ok(())
    }

    /// Adds a [squeeze-and-excitation](Self::squeeze_excitation) made of these layers.
    pub(crate) fn gates(&mut self, layers: [Linear; 2]) {
        self.layers.push(Layer::SqueezeExcitation(Box::new(layers)));
    }

    /// Adds a DyMN block (Schmid et al. 2023, arXiv 2310.15648), on maps. Reads `context_gen`, `exp_conv` and its norm,
    /// `depth_conv`, `depth_act` and `proj_conv`, named as in the reference.
    ///
    /// # Errors
    /// [`Error::Config`] for a size out of range, otherwise as [`Loader::get`].
    pub fn dynamic_block(&mut self, block: &Loader, config: DynamicBlock) -> Result<()> {
        self.layers.push(Layer::Dynamic(Box::new(dynamic::Block::load(block, config, self.maps)?)));
        self.maps.width = self.maps.width.and_then(|width| width.div_ceil(config.stride).into());
        Ok(())
    }

    /// Ends a stage, at which [`forward_observed`](Self::forward_observed) calls its observer.
    pub fn end_stage(&mut self) {
        self.layers.push(Layer::EndOfStage);
    }

    fn narrow(&mut self, by: usize) {
        self.maps.width = self.maps.width.and_then(|width| width.checked_div(by));
    }

    /// Runs the layers on `x` `[batch, channels, height, width]`, or `[batch, channels, length]` on sequences. The
    /// output has the same layout. Each row's result is independent of the rest of the batch.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_observed(x, |_, _| Ok(()))
    }

    /// As [`forward`](Self::forward), but calls `observe` at the end of each stage with its index from 0 and a function
    /// that returns the values there, in the layout of `forward`'s output.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and any error of `observe`.
    pub fn forward_observed(
        &self,
        x: &Tensor,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<Tensor> {
        let run = || self.tensor(&self.run(x, observe)?);
        run().context("running convolutions")
    }

    /// As [`forward_observed`](Self::forward_observed), but returns the mean of each channel, `[batch, channels]`, and
    /// the maps only if `expected`.
    pub(crate) fn forward_means(
        &self,
        x: &Tensor,
        expected: bool,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let run = || {
            let x = self.run(x, observe)?;
            Ok::<_, Error>((x.means()?, expected.then(|| self.tensor(&x)).transpose()?))
        };
        run().context("running convolutions")
    }

    /// Converts to the layout of [`forward`](Self::forward)'s output.
    fn tensor(&self, x: &FeatureMap) -> Result<Tensor> {
        Ok(if self.maps.are_sequences { x.to_sequence()? } else { x.to_tensor()? })
    }

    fn run(
        &self,
        x: &Tensor,
        mut observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<FeatureMap> {
        let mut x = match self.maps.are_sequences {
            true => FeatureMap::from_sequence(x, &self.workspace)?,
            false => FeatureMap::new(x.clone(), &self.workspace)?,
        };
        let stages = self.layers.split_inclusive(|layer| matches!(layer, Layer::EndOfStage));
        for (stage, layers) in stages.enumerate() {
            x = forward_all(layers, x)?;
            if let Some(Layer::EndOfStage) = layers.last() {
                observe(stage, &|| self.tensor(&x))?;
            }
        }
        Ok(x)
    }

    /// As [`forward`](Self::forward), but for maps with channels last, `[batch, height, width, channels]`, on input and
    /// output.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match.
    pub fn forward_channels_last(&self, x: &Tensor) -> Result<Tensor> {
        let run = || {
            let x = FeatureMap::from_channels_last(x, &self.workspace)?;
            Ok::<_, Error>(forward_all(&self.layers, x)?.to_channels_last()?)
        };
        run().context("running convolutions")
    }

    /// As [`forward`](Self::forward), but for sequences of vectors, `[batch, length, channels]`, on input and output.
    /// With `lengths`, everything after the first `lengths[b]` vectors of sequence `b` is set to zero before each
    /// convolution, as if the sequence were alone; ignore the output beyond.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one length of 1 to `length` per sequence, or if lengths are given to a stack
    /// with layers other than convolutions; [`Error::Tensor`] if the shape or the device does not match, or the stack
    /// is one on maps.
    pub fn forward_vectors(&self, x: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        self.run_vectors(x, lengths.map(<[usize]>::to_vec)).context("running convolutions")
    }

    fn run_vectors(&self, x: &Tensor, mut lengths: Option<Vec<usize>>) -> Result<Tensor> {
        let (batch, length, _) = x.dims3()?;
        if let Some(lengths) = &lengths {
            check_lengths(lengths, batch, 1..=length)?;
        }
        let mut x = FeatureMap::from_vectors(x, &self.workspace)?;
        for layer in &self.layers {
            if let Some(lengths) = &mut lengths {
                let Layer::Conv(conv, None) = layer else {
                    return Err(Error::argument(
                        "lengths",
                        format!("{lengths:?}"),
                        "expected a stack of convolutions only",
                    ));
                };
                x = x.masked(lengths)?;
                for length in lengths {
                    *length = conv.shape.output(*length, 1).map_or(0, |(length, _)| length);
                }
            }
            x = layer.forward(x)?;
        }
        Ok(x.to_vectors()?)
    }
}

/// Convolutions that read or write maps with at least this many values run row by row.
const MIN_STREAMED_VALUES: usize = 1 << 17;

fn shape_error(what: &str, got: &[usize], shape: Shape) -> Error {
    candle_core::Error::Msg(format!("{what} of {got:?} does not fit maps of {shape:?}")).into()
}

/// The indices into a sequence that form its padded version for [`ConvStack::reflect_pad`]; `None` is a zero.
fn reflected_indices(length: usize, kernel: usize, stride: usize) -> Vec<Option<usize>> {
    let padding = kernel - stride;
    let before = padding - padding / 2;
    let after = padding / 2 + (length.next_multiple_of(stride) - length);
    // The shortest length that can be mirrored; zeros extend a shorter sequence to it.
    let mirrored = length.max(before.max(after) + 1);
    let place = |i: usize| match i.checked_sub(before) {
        None => before - i,
        Some(i) if i < mirrored => i,
        Some(i) => 2 * (mirrored - 1) - i,
    };
    (0..before + length + after).map(|i| Some(place(i)).filter(|&place| place < length)).collect()
}

/// Runs the layers in order.
fn forward_all(mut layers: &[Layer], mut x: FeatureMap) -> Result<FeatureMap> {
    while let Some((first, rest)) = layers.split_first() {
        // Gates are folded into the weights of the convolution that follows.
        if let (Layer::SqueezeExcitation(fcs), [Layer::Conv(conv, None), rest @ ..]) = (first, rest)
            && let (Values::Blocks(map), Some(packed)) = (&x.values, conv.packed())
        {
            let gates = gates(fcs, &x)?.flatten_all()?.to_vec1()?;
            if let Some(map) = packed.forward_scaled(map, &gates, Isa::best(), &x.workspace) {
                (x, layers) = (x.with(Values::Blocks(map)), rest);
                continue;
            }
        }
        (x, layers) = match streamed(layers, &x)? {
            Some(done) => done,
            None => (first.forward(x)?, rest),
        };
    }
    Ok(x)
}

/// The gates `[batch, channels]` of a squeeze-and-excitation on `x`.
fn gates([fc1, fc2]: &[Linear; 2], x: &FeatureMap) -> Result<Tensor> {
    fc2.forward(&fc1.forward(&x.means()?)?)
}

/// Runs the leading layers that can stream row by row on the CPU. Returns their output and the remaining layers, or
/// `None` if fewer than two layers stream.
fn streamed<'a>(layers: &'a [Layer], x: &FeatureMap) -> Result<Option<(FeatureMap, &'a [Layer])>> {
    let (_, channels, height, width) = match &x.values {
        Values::Blocks(map) => (0, map.shape.channels, map.shape.height, map.shape.width),
        Values::Tensor(x) => x.dims4()?,
    };
    let (mut steps, mut size) = (Vec::new(), (channels, height, width));
    let n_layers = layers.iter().take_while(|layer| collect(layer, &mut steps, &mut size)).count();
    if steps.len() < 2 {
        return Ok(None);
    }
    let run = |input: Input| stream(&steps, input, Isa::best(), &x.workspace);
    let map = match &x.values {
        Values::Blocks(map) => run(Input::Map(map)),
        Values::Tensor(x) if runs_on_cpu_kernels(x) => with_planes(x, |x, shape| run(Input::Planes(x, shape)))?,
        Values::Tensor(_) => None,
    };
    Ok(map.map(|map| (x.with(Values::Blocks(map)), &layers[n_layers..])))
}

/// Adds the steps of a layer to `steps` and updates `size`: channels, rows and columns. Returns `false`, and adds
/// nothing, for a layer that cannot run row by row, and for small maps, which stay in the cache as a whole and then
/// need their weights read less often.
fn collect<'a>(layer: &'a Layer, steps: &mut Vec<Step<'a>>, size: &mut (usize, usize, usize)) -> bool {
    match layer {
        Layer::EndOfStage => true,
        Layer::Conv(conv, None) => {
            let after =
                conv.shape.output(size.1, size.2).map(|(rows, columns)| (conv.shape.out_channels, rows, columns));
            let values = |size: (usize, usize, usize)| size.0.saturating_mul(size.1).saturating_mul(size.2);
            let (Some(after), Some(conv)) = (after, conv.packed()) else { return false };
            let streams = Step::Conv(conv).streams(steps.is_empty());
            if !streams || values(*size).max(values(after)) < MIN_STREAMED_VALUES {
                return false;
            }
            steps.push(Step::Conv(conv));
            *size = after;
            true
        }
        Layer::Residual(sum) if sum.shortcut.is_empty() && sum.activation == Activation::Identity => {
            let (start, before) = (steps.len(), *size);
            let all = sum.layers.iter().all(|layer| collect(layer, steps, size));
            match all {
                true => steps.push(Step::Add(start)),
                false => {
                    steps.truncate(start);
                    *size = before;
                }
            }
            all
        }
        _ => false,
    }
}

impl Layer {
    fn forward(&self, mut x: FeatureMap) -> Result<FeatureMap> {
        match self {
            Self::Conv(conv, pool) => Ok(conv.forward(&x, *pool)?),
            Self::Pool(pool) => Ok(pool.forward(&x)?),
            Self::LpPool(pool) => pool.forward_map(x),
            Self::BatchNorm(norm, activation) => Ok(norm.forward_map(x, *activation)?),
            Self::Dropout(dropout) if dropout.is_on() => {
                let y = dropout.forward(&x.to_tensor()?)?;
                Ok(x.with(Values::Tensor(y)))
            }
            Self::Dynamic(block) => block.forward(x),
            Self::SqueezeExcitation(fcs) => {
                let gates = gates(fcs, &x)?;
                match x.values {
                    Values::Blocks(ref mut map) => {
                        let done = map.scale(&gates.flatten_all()?.to_vec1()?);
                        done.ok_or_else(|| shape_error("gates", gates.dims(), map.shape))?;
                        Ok(x)
                    }
                    Values::Tensor(ref values) => {
                        let y = values.broadcast_mul(&gates.unsqueeze(2)?.unsqueeze(3)?)?;
                        Ok(x.with(Values::Tensor(y)))
                    }
                }
            }
            Self::Repeat(repeats) => {
                let y = x.to_tensor()?;
                let (batch, channels, height, width) = y.dims4()?;
                let y = y.unsqueeze(2)?.broadcast_as((batch, channels, *repeats, height, width))?;
                Ok(x.with(Values::Tensor(y.reshape((batch, channels * repeats, height, width))?)))
            }
            Self::Residual(sum) => sum.forward(x),
            Self::Activation(activation) => match x.values {
                Values::Blocks(ref mut map) => {
                    map.activate(*activation, Isa::best());
                    Ok(x)
                }
                Values::Tensor(ref values) => {
                    let y = activation.forward(values.clone())?;
                    Ok(x.with(Values::Tensor(y)))
                }
            },
            Self::Snake(alpha) => match x.values {
                Values::Blocks(ref mut map) => {
                    map.snake(&alpha.flatten_all()?.to_vec1()?)
                        .ok_or_else(|| shape_error("α", alpha.dims(), map.shape))?;
                    Ok(x)
                }
                Values::Tensor(ref values) => {
                    let alpha = alpha.unsqueeze(3)?;
                    let sine = values.broadcast_mul(&alpha)?.sin()?.sqr()?;
                    let y = (values + sine.broadcast_div(&(alpha + f64::from(SNAKE_EPS))?)?)?;
                    Ok(x.with(Values::Tensor(y)))
                }
            },
            Self::Reflect { kernel: 1, stride: 1 } => Ok(x),
            Self::Reflect { kernel, stride } => match x.values {
                Values::Blocks(ref map) => {
                    let rows = reflected_indices(map.shape.height, *kernel, *stride);
                    let y = map.select(&rows, &x.workspace);
                    let y = y.ok_or_else(|| shape_error("padding", &[*kernel, *stride], map.shape))?;
                    Ok(x.with(Values::Blocks(y)))
                }
                Values::Tensor(ref values) => {
                    let height = values.dim(2)?;
                    let rows = reflected_indices(height, *kernel, *stride).into_iter();
                    let rows = rows.map(|row| row.unwrap_or(height) as u32).collect::<Vec<_>>(); // the row of zeros
                    let rows = Tensor::new(rows, values.device())?;
                    let y = values.pad_with_zeros(2, 0, 1)?.index_select(&rows, 2)?;
                    Ok(x.with(Values::Tensor(y)))
                }
            },
            Self::Dropout(_) | Self::EndOfStage => Ok(x),
        }
    }
}

/// As [`forward_all`], but keeps the input. Most first layers only read it, so it need not be copied.
fn forward_beside(layers: &[Layer], x: &FeatureMap) -> Result<FeatureMap> {
    if let Some((y, rest)) = streamed(layers, x)? {
        return forward_all(rest, y);
    }
    match layers {
        [Layer::Conv(conv, pool), rest @ ..] => forward_all(rest, conv.forward(x, *pool)?),
        [Layer::Pool(pool), rest @ ..] => forward_all(rest, pool.forward(x)?),
        _ => forward_all(layers, x.clone()),
    }
}

impl Residual {
    fn forward(&self, x: FeatureMap) -> Result<FeatureMap> {
        let (mut y, x) = if self.shortcut.is_empty() {
            (forward_beside(&self.layers, &x)?, x)
        } else {
            let connected = forward_beside(&self.shortcut, &x)?;
            (forward_all(&self.layers, x)?, connected)
        };
        if let (Values::Blocks(map), Values::Blocks(x)) = (&mut y.values, &x.values) {
            map.add(x, self.activation, Isa::best()).ok_or_else(|| {
                shape_error("a shortcut", &[x.shape.channels, x.shape.height, x.shape.width], map.shape)
            })?;
            return Ok(y);
        }
        let sum = self.activation.forward((y.to_tensor()? + x.to_tensor()?)?)?;
        Ok(y.with(Values::Tensor(sum)))
    }
}
