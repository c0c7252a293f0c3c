//! Trains nets that hear spoken digits: `cargo run --release --features cli --example train_spoken_digits -- --help`.

#[path = "../training/classes.rs"]
mod classes;
mod models;
#[path = "../training/mod.rs"]
mod training;

use std::path::{Path, PathBuf};

use clap::Parser;
use classes::{Clip, describe, interval, measure};
use clipwise::weights::Parameters;
use clipwise::{LabelSet, Tagger, Waveform, Weights, device};
use models::{Kind, Net, RATE};
use training::{Failure, Settings, fit};

const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Trains a net on the Free Spoken Digit Dataset and writes a folder that `Tagger::open` opens.
///
/// The data set's own split by file name, <digit>_<speaker>_<n>.wav: n from 0 to 4 is the test, which is looked at once, at the
/// end. Of the rest, n from 5 to 7 tells when to stop, and what remains is trained on.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Which net
    #[arg(long, value_enum, default_value_t = Kind::M5)]
    model: Kind,
    #[command(flatten)]
    settings: Settings,
    /// Where to train: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// The folder to write
    #[arg(long, value_name = "FOLDER", default_value = "spoken-digits")]
    out: PathBuf,
    /// The folder with the recordings
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let device = device::parse(&args.device)?;
    let [train, validation, test] = read(&args.data)?;
    println!("{} clips to train on, {} to validate, {} to test", train.len(), validation.len(), test.len());

    let parameters = Parameters::new(&device, args.settings.seed);
    let net = Net::build(args.model, &parameters)?;
    println!("{} parameters", parameters.count());
    let labels: LabelSet = DIGITS.into_iter().collect();
    describe(&args.out, &net.config(), &labels)?;

    let validate = || {
        // The checkpoint as it would be loaded: folded and packed.
        let model = net.config().load(&parameters.weights()?, &device)?;
        Ok(Some(measure(&*model, &validation)?.0))
    };
    let checkpoint = args.out.join("model.safetensors");
    let forward = |clips: &[usize], random: &mut _| net.forward(&train, clips, random);
    let lengths: Vec<usize> = train.iter().map(|clip| clip.waveform.n_samples()).collect();
    let lengths = (args.model != Kind::M5).then_some(lengths.as_slice());
    fit(&parameters, &args.settings, train.len(), lengths, &checkpoint, forward, validate)?;

    let tagger = Tagger::open(&args.out, &device)?;
    let (measure, right) = measure(tagger.model(), &test)?;
    let n_right = right.iter().filter(|&&right| right).count();
    let (low, high) = interval(n_right, right.len());
    println!("{} tensors in {}", Weights::open(&checkpoint)?.len(), checkpoint.display());
    println!(
        "test accuracy {:.4} ({n_right} of {}; 95 % interval {low:.4} to {high:.4}), loss {:.4}",
        measure.accuracy,
        right.len(),
        measure.loss
    );
    Ok(())
}

/// The clips to train on, to validate and to test.
fn read(folder: &Path) -> Result<[Vec<Clip>; 3], Failure> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, Failure>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wav"));
    files.sort();
    let mut parts = [const { Vec::new() }; 3];
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let fields: Vec<&str> = name.split('_').collect();
        let (Some(Ok(class)), Some(Ok(n))) =
            (fields.first().map(|digit| digit.parse::<usize>()), fields.get(2).map(|n| n.parse::<usize>()))
        else {
            return Err(format!("{}: not <digit>_<speaker>_<n>.wav", file.display()).into());
        };
        if class >= DIGITS.len() {
            return Err(format!("{}: {class} is no digit", file.display()).into());
        }
        let part = match n {
            0..=4 => 2,
            5..=7 => 1,
            _ => 0,
        };
        parts[part].push(Clip { waveform: Waveform::open(&file)?.resample(RATE)?, class });
    }
    if parts.iter().any(Vec::is_empty) {
        return Err(format!("{}: too few recordings", folder.display()).into());
    }
    Ok(parts)
}
