//! The picture: three panels over one time axis.

use std::error::Error;
use std::path::Path;

use clipwise::Event;
use clipwise::ndarray::Array2;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::message::{Failure, name};

const SIZE: (u32, u32) = (1400, 1000);
const FONT: &str = "sans-serif";
const TEXT: i32 = 16;
/// Room beside all panels: for names at the left, for the scale of levels at the right.
const LEFT: u32 = 260;
/// Left of everything.
const MARGIN: u32 = 12;
const RIGHT: u32 = 90;
/// Room under a panel for its times, and for the axis's name under the last.
const TIMES: u32 = 28;
const NAME: u32 = 22;
/// Height of a row of events; there is always room for some.
const ROW: usize = 34;
const MIN_ROWS: usize = 2;
/// Room in [`LEFT`] for the numbers of an axis.
const NUMBERS: i32 = 40;
/// The spectrogram shows so many dB below its maximum.
const RANGE: f32 = 80.0;
/// Frequencies that are marked.
const MARKS: [f64; 10] = [62.0, 125.0, 250.0, 500.0, 1e3, 2e3, 4e3, 8e3, 12e3, 16e3];
/// Dark to light, evenly spaced.
const LEVELS: [[f32; 3]; 6] = [
    [0.0, 0.0, 8.0],
    [59.0, 15.0, 112.0],
    [140.0, 41.0, 129.0],
    [222.0, 73.0, 104.0],
    [254.0, 159.0, 109.0],
    [252.0, 253.0, 191.0],
];
/// Of classes, one after the other.
const CLASSES: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 160, 180),
    RGBColor(227, 99, 184),
    RGBColor(110, 110, 110),
    RGBColor(160, 150, 20),
];

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// A class with what is drawn of it.
pub struct Class {
    pub label: String,
    /// Seconds and score; empty where they are not to be drawn.
    pub scores: Vec<(f64, f32)>,
    pub events: Vec<Event>,
}

pub struct Picture {
    pub title: String,
    pub seconds: f64,
    /// In dB, `[n_frames, n_mels]`.
    pub log_mel: Array2<f32>,
    /// Frequency of each mel band.
    pub mel_hz: Vec<f64>,
    pub threshold: f32,
    pub classes: Vec<Class>,
}

impl Picture {
    /// Draws the picture with this font into a file.
    pub fn draw(&self, path: &Path, font: &'static [u8]) -> Result<(), Failure> {
        register_font(FONT, FontStyle::Normal, font).map_err(|_| "cannot read the font")?;
        self.panels(path).map_err(|error| format!("cannot draw {}: {error}", name(path)).into())
    }

    /// All letters of names in the picture.
    pub fn text(&self) -> String {
        self.classes.iter().map(|class| class.label.as_str()).chain([self.title.as_str()]).collect()
    }

    fn panels(&self, path: &Path) -> Drawn {
        let root = BitMapBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let panels = root.margin(10, 0, 0, 0).titled(&self.title, (FONT, 22))?;
        let n_rows = self.classes.iter().filter(|class| !class.events.is_empty()).count().max(MIN_ROWS);
        let height = panels.dim_in_pixel().1 - (n_rows * ROW) as u32 - TIMES - NAME;
        let (upper, events) = panels.split_vertically(height);
        let (spectrogram, scores) = upper.split_vertically(height * 55 / 100);
        self.spectrogram(&spectrogram)?;
        self.scores(&scores)?;
        self.events(&events)?;
        root.present()?;
        Ok(())
    }

    fn spectrogram(&self, area: &Area) -> Drawn {
        let (n_frames, n_mels) = self.log_mel.dim();
        let mut chart = panel(area, TIMES).build_cartesian_2d(0.0..self.seconds, 0.0..n_mels as f64)?;
        let mesh = &mut chart.configure_mesh();
        mesh.disable_mesh()
            .y_labels(0)
            .y_desc("frequency")
            .axis_desc_style((FONT, TEXT))
            .label_style((FONT, TEXT))
            .draw()?;
        let loudest = self.log_mel.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let pixels = chart.plotting_area().strip_coord_spec();
        let (width, height) = pixels.dim_in_pixel();
        for x in 0..width {
            // The loudest of the frames that share a column.
            let frames = x as usize * n_frames / width as usize..((x as usize + 1) * n_frames).div_ceil(width as usize);
            for y in 0..height {
                let mel = (height - 1 - y) as usize * n_mels / height as usize;
                let level = frames.clone().map(|frame| self.log_mel[(frame, mel)]).fold(f32::NEG_INFINITY, f32::max);
                pixels.draw_pixel((x as i32, y as i32), &colour(1.0 - (loudest - level) / RANGE))?;
            }
        }
        let (left, top) = corner(area, &pixels);
        let (right, height) = (left + width as i32, height as i32);
        let mut last = i32::MAX;
        for hz in MARKS.into_iter().filter(|&hz| self.mel_hz.last().is_some_and(|&highest| hz <= highest)) {
            let above = self.mel_hz.partition_point(|&mel_hz| mel_hz < hz);
            let y = top + height - (height as f64 * (above as f64 + 0.5) / n_mels as f64) as i32;
            if above > 0 && last - y > TEXT {
                let text = if hz < 1e3 { format!("{hz:.0} Hz") } else { format!("{:.0} kHz", hz / 1e3) };
                area.draw(&PathElement::new([(left - 5, y), (left, y)], BLACK))?;
                area.draw_text(&text, &style(area, HPos::Right), (left - 8, y))?;
                last = y;
            }
        }
        for y in 0..height {
            let level = colour(1.0 - y as f32 / height as f32);
            area.draw(&Rectangle::new([(right + 14, top + y), (right + 28, top + y + 1)], level.filled()))?;
        }
        for share in 0..=4 {
            let (y, level) = (top + share * height / 4, RANGE * share as f32 / -4.0 + 0.0);
            let unit = if share == 0 { " dB" } else { "" };
            area.draw(&PathElement::new([(right + 28, y), (right + 32, y)], BLACK))?;
            area.draw_text(&format!("{level:.0}{unit}"), &style(area, HPos::Left), (right + 36, y))?;
        }
        Ok(())
    }

    fn scores(&self, area: &Area) -> Drawn {
        let mut chart = panel(area, TIMES).build_cartesian_2d(0.0..self.seconds, 0.0f32..1.0)?;
        let mesh = &mut chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT).y_labels(6).y_desc("score");
        mesh.axis_desc_style((FONT, TEXT)).label_style((FONT, TEXT)).draw()?;
        let level = [(0.0, self.threshold), (self.seconds, self.threshold)];
        chart.draw_series(DashedLineSeries::new(level, 4, 4, BLACK.mix(0.6).into()))?;
        let (left, top) = corner(area, &chart.plotting_area().strip_coord_spec());
        let names = left - NUMBERS;
        let mut y = top + TEXT / 2;
        let drawn = self.classes.iter().enumerate().filter(|(_, class)| !class.scores.is_empty());
        for (i, class) in drawn {
            let style_of_line = CLASSES[i % CLASSES.len()].stroke_width(2);
            chart.draw_series(LineSeries::new(class.scores.iter().copied(), style_of_line))?;
            if let [point] = class.scores[..] {
                chart.draw_series([Circle::new(point, 3, style_of_line.filled())])?;
            }
            area.draw(&PathElement::new([(names - 22, y), (names - 4, y)], style_of_line))?;
            area.draw_text(&shortened(&class.label), &style(area, HPos::Right), (names - 28, y))?;
            y += TEXT + 7;
        }
        for x in [names - 22, names - 14, names - 6] {
            area.draw(&PathElement::new([(x, y), (x + 4, y)], BLACK.mix(0.6)))?;
        }
        area.draw_text("threshold", &style(area, HPos::Right), (names - 28, y))?;
        Ok(())
    }

    fn events(&self, area: &Area) -> Drawn {
        let rows: Vec<_> = self.classes.iter().enumerate().filter(|(_, class)| !class.events.is_empty()).collect();
        let n_rows = rows.len().max(MIN_ROWS);
        let mut chart = panel(area, TIMES + NAME).build_cartesian_2d(0.0..self.seconds, 0.0..n_rows as f64)?;
        let mesh = &mut chart.configure_mesh();
        mesh.disable_y_mesh().light_line_style(TRANSPARENT).y_labels(0);
        mesh.x_desc("time in seconds")
            .y_desc("events")
            .axis_desc_style((FONT, TEXT))
            .label_style((FONT, TEXT))
            .draw()?;
        let events = chart.plotting_area();
        let (left, top) = corner(area, &events.strip_coord_spec());
        let height = events.dim_in_pixel().1 as i32;
        let name = |row: usize, text: &str| {
            let y = top + height * (2 * row as i32 + 1) / (2 * n_rows as i32);
            area.draw_text(text, &style(area, HPos::Right), (left - 10, y))
        };
        if rows.is_empty() {
            name(0, "none")?;
        }
        for (row, (i, class)) in rows.into_iter().enumerate() {
            let bottom = (n_rows - 1 - row) as f64;
            for event in &class.events {
                let bar = [(event.onset, bottom + 0.2), (event.offset.min(self.seconds), bottom + 0.8)];
                let strength = 0.25 + 0.75 * f64::from(event.peak.clamp(0.0, 1.0));
                events.draw(&Rectangle::new(bar, CLASSES[i % CLASSES.len()].mix(strength).filled()))?;
            }
            name(row, &shortened(&class.label))?;
        }
        Ok(())
    }
}

fn panel<'a, 'b>(area: &'a Area<'b>, below: u32) -> ChartBuilder<'a, 'b, BitMapBackend<'b>> {
    let mut panel = ChartBuilder::on(area);
    panel.margin_left(MARGIN).margin_right(RIGHT).margin_top(12).x_label_area_size(below).y_label_area_size(LEFT);
    panel
}

/// Where a panel begins within an area.
fn corner(area: &Area, panel: &Area) -> (i32, i32) {
    let (area, panel) = (area.get_base_pixel(), panel.get_base_pixel());
    (panel.0 - area.0, panel.1 - area.1)
}

/// Text before or behind a place.
fn style<'a>(area: &Area, place: HPos) -> TextStyle<'a> {
    (FONT, TEXT).into_text_style(area).pos(Pos::new(place, VPos::Center))
}

/// What fits at the left of a panel.
fn shortened(label: &str) -> String {
    if label.chars().count() <= 22 { label.to_string() } else { label.chars().take(21).collect::<String>() + "…" }
}

/// 0 is dark, 1 is light.
fn colour(level: f32) -> RGBColor {
    let place = level.clamp(0.0, 1.0) * (LEVELS.len() - 1) as f32;
    let below = (place as usize).min(LEVELS.len() - 2);
    let share = place - below as f32;
    let mix = |i: usize| (LEVELS[below][i] * (1.0 - share) + LEVELS[below + 1][i] * share) as u8;
    RGBColor(mix(0), mix(1), mix(2))
}
