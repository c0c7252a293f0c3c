//! Trains a narrow CNN14 on ESC-10: `cargo run --release --features symphonia --example train_environment -- --help`.

#[path = "../training/classes.rs"]
mod classes;
#[path = "../training/mod.rs"]
mod training;

use std::path::{Path, PathBuf};

use clap::Parser;
use classes::{Clip, describe, interval, measure, step, targets};
use clipwise::augment::{Mixup, MixupPairing, Random, SpecAugment};
use clipwise::candle_core::Tensor;
use clipwise::frontend::{LogMelConfig, StftConfig};
use clipwise::models::OutputActivation;
use clipwise::models::cnn14::{Cnn14, Config};
use clipwise::weights::Parameters;
use clipwise::{LabelSet, ModelConfig, Tagger, TaggingModel, Waveform, device};
use training::{Failure, Settings, fit};

/// Trains a narrow CNN14 on ESC-10 and writes a folder that `Tagger::open` opens.
///
/// Folds 1 to 4 are trained on, fold 5 is the test, looked at once, at the end. With --validate, the fold that it names is not
/// trained on but tells when to stop, and nothing is tested: for the choice of settings.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    settings: Settings,
    /// A fold from 1 to 4 to validate on
    #[arg(long, value_name = "FOLD", value_parser = clap::value_parser!(u8).range(1..=4))]
    validate: Option<u8>,
    /// α of mixup's weights; 0 for no mixup
    #[arg(long, default_value_t = 0.4)]
    mixup: f64,
    /// Where to train: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// The folder to write
    #[arg(long, value_name = "FOLDER", default_value = "environment")]
    out: PathBuf,
    /// A folder with one folder of recordings a class, <fold>-….ogg
    #[arg(value_name = "DATA")]
    data: PathBuf,
}

/// 16 kHz, window 32 ms, hop 32 ms, 64 mels.
const LOG_MEL: LogMelConfig =
    LogMelConfig { stft: StftConfig { hop_length: 512, ..LogMelConfig::PANNS_16K.stft }, ..LogMelConfig::PANNS_16K };
/// Of 5 s.
const N_FRAMES: usize = 157;
const CHANNELS: [usize; 6] = [16, 24, 32, 64, 96, 128];

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let device = device::parse(&args.device)?;
    let (labels, clips) = read(&args.data)?;
    let fold = |wanted: &dyn Fn(u8) -> bool| -> Vec<Clip> {
        clips.iter().filter(|(fold, _)| wanted(*fold)).map(|(_, clip)| clip.clone()).collect()
    };
    let train = fold(&|fold| fold < 5 && Some(fold) != args.validate);
    let validation = fold(&|fold| Some(fold) == args.validate);
    println!("{} clips to train on, {} to validate", train.len(), validation.len());

    let config = Config {
        name: "cnn14-esc10".into(),
        log_mel: LOG_MEL,
        channels: CHANNELS,
        embedding_dim: 128,
        n_classes: labels.len(),
        head: OutputActivation::Softmax,
        ..Config::AUDIOSET_16K
    };
    let parameters = Parameters::new(&device, args.settings.seed);
    let model = Cnn14::build(&config, &parameters.loader())?;
    println!("{} parameters", parameters.count());
    let config = ModelConfig::Cnn14(config);
    describe(&args.out, &config, &labels)?;

    let features = train.iter().map(|clip| Ok(model.log_mel().compute(&clip.waveform.samples)?));
    let features = features.collect::<Result<Vec<_>, Failure>>()?;
    let mixup = (args.mixup > 0.0).then_some(Mixup { alpha: args.mixup, pairing: MixupPairing::Shuffled });
    let forward = |batch: &[usize], random: &mut Random| {
        let rows: Vec<Vec<f32>> = batch.iter().map(|&i| moved(features[i].as_slice().unwrap_or(&[]), random)).collect();
        let shape = (batch.len(), 1, N_FRAMES, LOG_MEL.mel.n_mels);
        let x = Tensor::from_vec(rows.concat(), shape, model.device())?;
        let classes: Vec<usize> = batch.iter().map(|&i| train[i].class).collect();
        let mut targets = targets(&classes, labels.len(), 0.05, model.device())?;
        let stripes = SpecAugment { time_drop_width: 24, ..SpecAugment::PANNS };
        let mut x = stripes.forward(&model.normalize(&x)?, random)?;
        if let Some(mixup) = &mixup {
            let plan = mixup.plan(batch.len(), random)?;
            (x, targets) = (plan.apply(&x)?, plan.apply(&targets)?);
        }
        step(&model.forward_normalized(&x)?.logits, &targets)
    };
    let validate = || match args.validate {
        Some(_) => Ok(Some(measure(&*config.load(&parameters.weights()?, &device)?, &validation)?.0)),
        None => Ok(None),
    };
    let checkpoint = args.out.join("model.safetensors");
    let alike = vec![0; train.len()]; // all batches have the same length
    fit(&parameters, &args.settings, train.len(), Some(alike.as_slice()), &checkpoint, forward, validate)?;

    if args.validate.is_none() {
        let tagger = Tagger::open(&args.out, &device)?;
        let (measure, right) = measure(tagger.model(), &fold(&|fold| fold == 5))?;
        let n_right = right.iter().filter(|&&right| right).count();
        let (low, high) = interval(n_right, right.len());
        println!(
            "fold 5: accuracy {:.4} ({n_right} of {}; 95 % interval {low:.4} to {high:.4}), loss {:.4}",
            measure.accuracy,
            right.len(),
            measure.loss
        );
    }
    Ok(())
}

/// The names of the classes, and the clips with their folds.
fn read(folder: &Path) -> Result<(LabelSet, Vec<(u8, Clip)>), Failure> {
    let entries = |folder: &Path| -> Result<Vec<PathBuf>, Failure> {
        let paths = std::fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        let mut paths: Vec<PathBuf> = paths.map(|entry| Ok(entry?.path())).collect::<Result<_, Failure>>()?;
        paths.sort();
        Ok(paths)
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let classes: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    let mut clips = Vec::new();
    for (class, folder) in classes.iter().enumerate() {
        for file in entries(folder)? {
            let fold = name(&file).split('-').next().and_then(|fold| fold.parse::<u8>().ok());
            let fold = fold.filter(|fold| (1..=5).contains(fold));
            let fold =
                fold.ok_or_else(|| format!("{}: its name does not begin with a fold from 1 to 5", file.display()))?;
            let waveform = Waveform::open(&file)?.resample(LOG_MEL.sample_rate)?;
            clips.push((fold, Clip { waveform, class }));
        }
    }
    let labels: LabelSet = classes.iter().map(|class| name(class).replace('-', " ")).collect();
    if clips.is_empty() {
        return Err(format!("{}: no recordings", folder.display()).into());
    }
    Ok((labels, clips))
}

/// [`N_FRAMES`] frames from anywhere on, over and over, up to 10 dB louder or softer.
fn moved(features: &[f32], random: &mut Random) -> Vec<f32> {
    let gain = (20.0 * random.uniform() - 10.0) as f32;
    let start = random.below(features.len() / LOG_MEL.mel.n_mels) * LOG_MEL.mel.n_mels;
    let values = features.iter().cycle().skip(start).take(N_FRAMES * LOG_MEL.mel.n_mels);
    values.map(|x| x + gain).collect()
}
