//! Convolutions: which kernel serves which.

use super::direct::{Direct, Geometry, Source};
use super::lanes::{LANES, Level};
use super::map::{Map, Shape, Window};
use super::transformed::Transformed;
use super::workspace::Workspace;
use crate::nn::{Activation, Pooling};

/// Filters with their norm folded in, and what follows them.
pub struct Filters<'a> {
    /// `[out, in, rows, columns]`.
    pub values: &'a [f32],
    /// One an output channel.
    pub scale: &'a [f32],
    /// One an output channel.
    pub bias: &'a [f32],
    pub activation: Activation,
}

/// A convolution, packed for its kernel.
#[derive(Debug)]
pub struct Conv {
    geometry: Geometry,
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    Direct(Direct),
    Transformed(Transformed),
}

/// What a convolution reads.
pub enum Input<'a> {
    /// `[batch, channels, height, width]`.
    Planes(&'a [f32], Shape),
    Map(&'a Map),
}

impl Conv {
    /// Chooses a kernel and packs the filters for it. `width` is the map's, where it is known.
    pub fn pack(geometry: Geometry, width: Option<usize>, filters: Filters) -> Self {
        let Geometry { in_channels, out_channels, kernel, stride, padding } = geometry;
        let mut bias = filters.bias.to_vec();
        bias.resize(out_channels.next_multiple_of(LANES), 0.0);
        let filter = |output: usize, input: usize, row: usize, column: usize| {
            let at = ((output * in_channels + input) * kernel.0 + row) * kernel.1 + column;
            f64::from(filters.values[at]) * f64::from(filters.scale[output])
        };
        let channels = (in_channels, out_channels);
        let packed = match (kernel, stride, padding) {
            _ if geometry.is_planar() => Packed::Direct(Direct::pack(geometry, filter, bias, filters.activation)),
            ((3, 3), (1, 1), (1, 1)) => {
                let scale = |x: f32, output: usize| f64::from(x) * f64::from(filters.scale[output]);
                let (all, _) = filters.values.as_chunks::<9>();
                let taps = |output: usize, input: usize| {
                    let [a, b, c, d, e, f, g, h, i] = all[output * in_channels + input].map(|x| scale(x, output));
                    [[a, b, c], [d, e, f], [g, h, i]]
                };
                Packed::Transformed(Transformed::pack(channels, width, taps, bias, filters.activation))
            }
            ((3, 1), (1, 1), (1, 0)) if width == Some(1) => {
                // The one column as the middle of three.
                let taps = |o, i| [0, 1, 2].map(|row| [0.0, filter(o, i, row, 0), 0.0]);
                Packed::Transformed(Transformed::pack(channels, width, taps, bias, filters.activation))
            }
            _ => Packed::Direct(Direct::pack(geometry, filter, bias, filters.activation)),
        };
        Self { geometry, packed }
    }

    /// The convolution, its activation and a pooling after it. `None` if the input does not fit.
    pub fn forward(
        &self,
        x: Input,
        pool: Option<(Pooling, Window)>,
        level: Level,
        workspace: &Workspace,
    ) -> Option<Map> {
        let shape = match &x {
            Input::Planes(_, shape) => *shape,
            Input::Map(map) => map.shape,
        };
        if shape.channels != self.geometry.in_channels {
            return None;
        }
        let (blocked, planes);
        let source = match x {
            Input::Planes(x, _) if self.geometry.is_planar() => Source::Planes(x),
            Input::Map(map) if self.geometry.is_planar() => {
                planes = map.to_planes();
                Source::Planes(&planes)
            }
            Input::Planes(x, _) => {
                blocked = Map::from_planes(x, shape, workspace)?;
                Source::Map(&blocked)
            }
            Input::Map(map) => Source::Map(map),
        };
        let mut pool = pool;
        let map = match (&self.packed, source) {
            (Packed::Transformed(conv), Source::Map(x)) => {
                let fused = pool.take_if(|(_, window)| *window == Window { size: (2, 2), padding: 0 });
                conv.forward(x, fused.map(|(pooling, _)| pooling), level, workspace)?
            }
            (Packed::Direct(conv), source) => conv.forward(source, shape, level, workspace)?,
            (Packed::Transformed(_), Source::Planes(_)) => return None, // never: planar filters are direct
        };
        match pool {
            Some((pooling, window)) => map.pool(pooling, window, level, workspace),
            None => Some(map),
        }
    }
}
