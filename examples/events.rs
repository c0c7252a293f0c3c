//! Finds sounds with their times in a recording of any length: `cargo run --release --example events -- FILE`.

use clipwise::audio::AudioReader;
use clipwise::{Event, EventConfig, EventDetector, Result, Tagger, WindowConfig};

fn main() -> Result<()> {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: events FILE");
        return Ok(());
    };
    let tagger = Tagger::bundled(&clipwise::device::best()?)?;
    let windows = WindowConfig { length: 2.0, hop: 0.5, ..WindowConfig::default() };
    let rules = EventConfig { threshold_on: 0.3, threshold_off: 0.15, min_duration: 0.5, ..EventConfig::default() };
    let mut detector = EventDetector::new(&rules, tagger.labels())?;

    // The file is read as it is needed: hours take no more memory than seconds.
    for window in tagger.windows(AudioReader::open(file)?, &windows)? {
        detector.push(&window?)?.iter().for_each(print);
    }
    detector.finish().iter().for_each(print); // what still sounds at the end
    Ok(())
}

fn print(event: &Event) {
    println!("{:8.2} {:8.2}  {:.2}  {}", event.onset, event.offset, event.peak, event.label);
}
