//! Consecutive convolutions, run row by row: of each intermediate map only the rows that the next convolution reads are
//! kept, in the cache. The results equal those of the separate convolutions.

use rayon::prelude::*;

use crate::nn::kernels::blocked::{BlockedMap, Shape};
use crate::nn::kernels::conv::depthwise::{DepthwiseConv, Lines};
use crate::nn::kernels::conv::direct::{DirectConv, Source};
use crate::nn::kernels::conv::int8::Int8Conv;
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::conv::{Conv, Input, Packed};
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::workspace::{Buffer, Workspace, count};

/// Minimum number of rows per task. A task recomputes the intermediate rows that its first row reads.
const MIN_ROWS: usize = 16;

/// Computes a map from the previous one.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    Conv(&'a Conv),
    /// Adds an earlier map: 0 is the input, `i` the output of step `i − 1`.
    Add(usize),
}

impl Step<'_> {
    /// Whether the step can run row by row; a convolution over planes can only as the first step.
    pub fn streams(&self, is_first: bool) -> bool {
        self.kind().is_some_and(|kind| is_first || !matches!(kind, Kind::Planar(_)))
    }

    fn kind(&self) -> Option<Kind<'_>> {
        Some(match self {
            Self::Add(level) => Kind::Add(*level),
            Self::Conv(conv) => match &conv.packed {
                Packed::Depthwise(depthwise) => Kind::Depthwise(depthwise),
                Packed::Int8(int8) => Kind::Int8(int8),
                Packed::Direct(direct) if conv.is_blocked_pointwise() => Kind::Pointwise(direct),
                Packed::Direct(direct) if direct.shape().is_planar() => Kind::Planar(direct),
                Packed::Direct(_) | Packed::Winograd(_) => return None,
            },
        })
    }
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Pointwise(&'a DirectConv),
    Int8(&'a Int8Conv),
    Depthwise(&'a DepthwiseConv),
    Planar(&'a DirectConv),
    Add(usize),
}

impl Kind<'_> {
    /// The shape of a convolution that reads several rows.
    fn window(&self) -> Option<ConvShape> {
        match self {
            Self::Depthwise(conv) => Some(conv.shape()),
            Self::Planar(conv) => Some(conv.shape()),
            _ => None,
        }
    }
}

/// The output of a step.
struct Level<'a> {
    kind: Kind<'a>,
    shape: Shape,
    /// Number of rows kept, in a ring: row `r` is in slot `r % slots`.
    slots: usize,
    segments: Vec<usize>,
}

/// Runs the steps in order. `None` unless each fits the output of the previous one and can [run row by
/// row](Step::streams), and if an output exceeds the address space.
pub fn stream(steps: &[Step], x: Input, isa: Isa, workspace: &Workspace) -> Option<BlockedMap> {
    let (source, input) = match &x {
        Input::Planes(x, shape) => (Source::Planes(x), *shape),
        Input::Map(map) => (Source::Map(map), map.shape),
    };
    let levels = levels(steps, input, matches!(source, Source::Planes(_)))?;
    let out = levels.last()?.shape;
    let mut map = BlockedMap::unwritten(out, workspace)?;
    let rows =
        (out.batch * out.height).div_ceil(rayon::current_num_threads()).clamp(MIN_ROWS, out.height.max(MIN_ROWS));
    let items = map.values.chunks_mut(out.height * out.row()).enumerate();
    let tasks: Vec<_> = items
        .flat_map(|(item, y)| y.chunks_mut(rows * out.row()).enumerate().map(move |(i, y)| (item, i * rows, y)))
        .collect();
    tasks.into_par_iter().for_each(|(item, first, y)| {
        let rings = levels.iter().map(|level| workspace.take(level.slots * level.shape.row())).collect();
        let next = vec![usize::MAX; levels.len()];
        let mut task = Task { levels: &levels, source, input, item, rings, next, isa, workspace };
        task.start(first);
        for (i, y) in y.chunks_mut(out.row()).enumerate() {
            task.advance(levels.len() - 1, first + i + 1);
            y.copy_from_slice(task.row(levels.len() - 1, first + i));
        }
    });
    Some(map)
}

/// The output shape of each step, and the number of rows to keep.
fn levels<'a>(steps: &'a [Step], input: Shape, is_planar: bool) -> Option<Vec<Level<'a>>> {
    let mut levels: Vec<Level> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let before = levels.last().map_or(input, |level| level.shape);
        let kind = step.kind()?;
        let shape = match (kind, step) {
            (Kind::Add(level), _) => {
                let added = level.checked_sub(1).map_or(Some(input), |level| Some(levels.get(level)?.shape))?;
                (added == before && i > 0 && (level > 0 || !is_planar)).then_some(before)?
            }
            (_, Step::Conv(conv)) if conv.conv_shape.in_channels == before.channels => {
                let (height, width) = conv.conv_shape.output(before.height, before.width)?;
                Shape { channels: conv.conv_shape.out_channels, height, width, ..before }
            }
            _ => return None,
        };
        if matches!(kind, Kind::Planar(_)) != (is_planar && i == 0) {
            return None;
        }
        let segments = match kind {
            Kind::Pointwise(conv) => conv.segments(before.width),
            _ => Vec::new(),
        };
        shape.values()?;
        levels.push(Level { kind, shape, slots: 1, segments });
    }
    for i in 0..levels.len() {
        // Keep the rows that the next step reads, and those that a later step adds.
        let mut slots = levels.get(i + 1).and_then(|next| next.kind.window()).map_or(1, |window| window.kernel.0);
        let mut ahead = 1usize;
        for later in &levels[i + 1..] {
            ahead = ahead.saturating_add(later.kind.window().map_or(0, |window| window.kernel.0 - 1));
            if matches!(later.kind, Kind::Add(level) if level == i + 1) {
                slots = slots.max(ahead);
            }
        }
        levels[i].slots = slots.min(levels[i].shape.height);
        count(&[levels[i].slots, levels[i].shape.row()])?;
    }
    Some(levels)
}

/// A range of rows of the last map of one clip.
struct Task<'a> {
    levels: &'a [Level<'a>],
    source: Source<'a>,
    input: Shape,
    item: usize,
    rings: Vec<Buffer>,
    /// The first row of each level that has not been computed.
    next: Vec<usize>,
    isa: Isa,
    workspace: &'a Workspace,
}

impl Task<'_> {
    /// Sets the first row of each level to the first that row `first` of the last level needs.
    fn start(&mut self, first: usize) {
        let last = self.levels.len() - 1;
        self.next[last] = first;
        for i in (0..=last).rev() {
            let row = self.next[i];
            let below = match self.levels[i].kind.window() {
                Some(window) => window.rows_seen(row, self.height(i)).1.start,
                None => row,
            };
            if i > 0 {
                self.next[i - 1] = self.next[i - 1].min(below);
            }
            if let Kind::Add(level @ 1..) = self.levels[i].kind {
                self.next[level - 1] = self.next[level - 1].min(row);
            }
        }
    }

    /// Number of rows of the map below level `i`.
    fn height(&self, i: usize) -> usize {
        i.checked_sub(1).map_or(self.input.height, |below| self.levels[below].shape.height)
    }

    /// A row that is in the ring.
    fn row(&self, level: usize, row: usize) -> &[f32] {
        let (width, slots) = (self.levels[level].shape.row(), self.levels[level].slots);
        &self.rings[level][row % slots * width..][..width]
    }

    /// Computes the rows of level `i` up to `end`, exclusive.
    fn advance(&mut self, i: usize, end: usize) {
        for row in self.next[i]..end {
            let (first_tap, seen) = match self.levels[i].kind.window() {
                Some(window) => window.rows_seen(row, self.height(i)),
                None => (0, row..row + 1),
            };
            if i > 0 {
                self.advance(i - 1, seen.end);
            }
            let Self { levels, source, input, item, isa, workspace, .. } = *self;
            let level = &levels[i];
            let (below, own) = self.rings.split_at_mut(i);
            let y_row = level.shape.row();
            let y = &mut own[0][row % level.slots * y_row..][..y_row];
            // The rows of the map below: the whole map or the ring.
            let (rows, slots, x_shape) = match (i.checked_sub(1), source) {
                (Some(i), _) => (&*below[i], levels[i].slots, levels[i].shape),
                (None, Source::Map(map)) => {
                    let item_len = input.height * input.row();
                    (&map.values[item * item_len..][..item_len], input.height, input)
                }
                (None, Source::Planes(_)) => (&[][..], 1, input),
            };
            let line = |row: usize| &rows[row % slots * x_shape.row()..][..x_shape.row()];
            match level.kind {
                Kind::Pointwise(conv) => conv.row(line(row), &level.segments, y, x_shape.width, isa),
                Kind::Int8(conv) => conv.lines(line(row), None, y, x_shape.width, isa, workspace),
                Kind::Depthwise(conv) => {
                    let lines = Lines { rows, row: x_shape.row(), first: seen.start % slots, n: seen.len() };
                    conv.row(lines, first_tap, x_shape.width, y, isa);
                }
                Kind::Planar(conv) => conv.line((source, input, item), row, y, isa, workspace),
                Kind::Add(added) => {
                    let added = match added.checked_sub(1) {
                        Some(added) => &below[added][row % levels[added].slots * y_row..][..y_row],
                        None => match source {
                            Source::Map(map) => &map.values[(item * input.height + row) * y_row..][..y_row],
                            Source::Planes(_) => unreachable!("planes are not added"),
                        },
                    };
                    y.iter_mut().zip(line(row)).zip(added).for_each(|((y, a), b)| *y = a + b);
                }
            }
            self.next[i] = row + 1;
        }
    }
}
