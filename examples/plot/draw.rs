//! The picture: three panels over one time axis.

use std::path::Path;

use clipwise::Event;
use clipwise::ndarray::Array2;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::command_line::Failure;

const SIZE: (u32, u32) = (1400, 1000);
const FONT: &str = "sans-serif";
/// Room for the labels at the left of all panels, and at the right.
const LEFT: u32 = 220;
const RIGHT: u32 = 30;
/// The spectrogram shows so many dB below its maximum.
const RANGE: f32 = 80.0;
/// Dark to light, evenly spaced.
const COLOURS: [[f32; 3]; 6] = [
    [0.0, 0.0, 8.0],
    [59.0, 15.0, 112.0],
    [140.0, 41.0, 129.0],
    [222.0, 73.0, 104.0],
    [254.0, 159.0, 109.0],
    [252.0, 253.0, 191.0],
];

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A class over time.
pub struct Curve {
    pub label: String,
    /// Seconds and score.
    pub points: Vec<(f64, f32)>,
}

pub struct Picture {
    pub title: String,
    pub seconds: f64,
    /// `[n_frames, n_mels]`.
    pub log_mel: Array2<f32>,
    /// Frequency of each mel band.
    pub mel_hz: Vec<f64>,
    pub curves: Vec<Curve>,
    pub threshold: f32,
    /// Those of a class stand together.
    pub events: Vec<Event>,
}

impl Picture {
    pub fn draw(&self, path: &Path) -> Result<(), Failure> {
        let no_font = |_| Failure::from("the font cannot be read");
        register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(no_font)?;
        self.panels(path).map_err(|error| format!("cannot draw {}: {error}", path.display()).into())
    }

    fn panels(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let root = BitMapBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(&self.title, (FONT, 22))?;
        let height = root.dim_in_pixel().1;
        let (spectrogram, rest) = root.split_vertically(height * 38 / 100);
        let (scores, events) = rest.split_vertically(height * 32 / 100);
        self.spectrogram(&spectrogram)?;
        self.scores(&scores)?;
        self.events(&events)?;
        root.present()?;
        Ok(())
    }

    fn spectrogram(&self, area: &Area) -> Result<(), Box<dyn std::error::Error>> {
        let (n_frames, n_mels) = self.log_mel.dim();
        let mut chart = ChartBuilder::on(area)
            .margin_right(RIGHT)
            .margin_top(8)
            .x_label_area_size(26)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..self.seconds, 0.0..n_mels as f64)?;
        let hz = |row: &f64| {
            let hz = self.mel_hz[(*row as usize).min(n_mels - 1)];
            if hz < 1000.0 { format!("{hz:.0} Hz") } else { format!("{:.1} kHz", hz / 1000.0) }
        };
        chart.configure_mesh().disable_mesh().y_labels(7).y_label_formatter(&hz).label_style((FONT, 15)).draw()?;
        let loudest = self.log_mel.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let panel = chart.plotting_area();
        let (width, height) = panel.dim_in_pixel();
        let panel = panel.strip_coord_spec();
        for x in 0..width {
            // The loudest of the frames that share a column.
            let frames = x as usize * n_frames / width as usize..((x as usize + 1) * n_frames).div_ceil(width as usize);
            for y in 0..height {
                let mel = (height - 1 - y) as usize * n_mels / height as usize;
                let level = frames.clone().map(|frame| self.log_mel[(frame, mel)]).fold(f32::NEG_INFINITY, f32::max);
                panel.draw_pixel((x as i32, y as i32), &colour(1.0 - (loudest - level) / RANGE))?;
            }
        }
        Ok(())
    }

    fn scores(&self, area: &Area) -> Result<(), Box<dyn std::error::Error>> {
        let mut chart = ChartBuilder::on(area)
            .margin_right(RIGHT)
            .margin_top(8)
            .x_label_area_size(26)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..self.seconds, 0.0f32..1.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(6)
            .y_desc("score")
            .label_style((FONT, 15))
            .draw()?;
        let level = [(0.0, self.threshold), (self.seconds, self.threshold)];
        chart.draw_series(DashedLineSeries::new(level, 4, 4, BLACK.mix(0.5).into()))?;
        for (i, curve) in self.curves.iter().enumerate() {
            let style = Palette99::pick(i).stroke_width(2);
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
                .label(&curve.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            if let [point] = curve.points[..] {
                chart.draw_series([Circle::new(point, 3, style.filled())])?;
            }
        }
        if !self.curves.is_empty() {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .label_font((FONT, 15))
                .draw()?;
        }
        Ok(())
    }

    fn events(&self, area: &Area) -> Result<(), Box<dyn std::error::Error>> {
        let mut labels: Vec<&str> = self.events.iter().map(|event| &*event.label).collect();
        labels.dedup();
        let rows = labels.len().max(1);
        let mut chart = ChartBuilder::on(area)
            .margin_right(RIGHT)
            .margin_top(8)
            .x_label_area_size(45)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..self.seconds, 0.0..rows as f64)?;
        chart.configure_mesh().disable_y_mesh().y_labels(0).x_desc("seconds").label_style((FONT, 15)).draw()?;
        let panel = chart.plotting_area();
        let right = |size: i32| {
            let place = plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Right,
                plotters::style::text_anchor::VPos::Center,
            );
            (FONT, size).into_font().into_text_style(area).pos(place)
        };
        for (row, label) in labels.iter().enumerate() {
            let (bottom, top) = (row_of(rows, row) + 0.15, row_of(rows, row) + 0.85);
            let colour = Palette99::pick(row);
            for event in self.events.iter().filter(|event| event.label == *label) {
                let bar = [(event.onset, bottom), (event.offset.min(self.seconds), top)];
                panel.draw(&Rectangle::new(bar, colour.mix(0.25 + 0.75 * f64::from(event.peak)).filled()))?;
            }
            let (x, y) = panel.map_coordinate(&(0.0, row_of(rows, row) + 0.5));
            let base = area.get_base_pixel();
            area.draw_text(&shortened(label), &right(15), (x - base.0 - 8, y - base.1))?;
        }
        if labels.is_empty() {
            let (x, y) = panel.map_coordinate(&(0.0, 0.5));
            let base = area.get_base_pixel();
            area.draw_text("no events", &right(15), (x - base.0 - 8, y - base.1))?;
        }
        Ok(())
    }
}

/// The first row is the topmost.
fn row_of(rows: usize, row: usize) -> f64 {
    (rows - 1 - row) as f64
}

/// What fits at the left of a panel.
fn shortened(label: &str) -> String {
    if label.chars().count() <= 26 { label.to_string() } else { label.chars().take(25).collect::<String>() + "…" }
}

/// 0 is dark, 1 is light.
fn colour(level: f32) -> RGBColor {
    let place = level.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let below = (place as usize).min(COLOURS.len() - 2);
    let share = place - below as f32;
    let mix = |i: usize| (COLOURS[below][i] * (1.0 - share) + COLOURS[below + 1][i] * share) as u8;
    RGBColor(mix(0), mix(1), mix(2))
}
