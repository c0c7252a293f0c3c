//! What the training examples share: the loop over epochs with early stopping, its progress, checkpoints.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use clipwise::augment::Random;
use clipwise::candle_core::{self, Tensor, backprop::GradStore};
use clipwise::weights::Parameters;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How to train.
#[derive(clap::Args, Clone)]
pub struct Settings {
    /// Passes over the training clips, at most
    #[arg(long, default_value_t = 60)]
    pub epochs: usize,
    /// Clips in a batch
    #[arg(long, default_value_t = 32)]
    pub batch: usize,
    /// The highest learning rate; it rises to it in the first twentieth and falls as a cosine
    #[arg(long, default_value_t = 3e-3)]
    pub rate: f64,
    /// AdamW's weight decay
    #[arg(long, default_value_t = 1e-2)]
    pub decay: f64,
    /// Epochs without a better validation loss before training ends
    #[arg(long, default_value_t = 15)]
    pub patience: usize,
    /// Seed of weights, order and augmentation
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The loss and the share of right answers.
#[derive(Clone, Copy)]
pub struct Measure {
    pub loss: f64,
    pub accuracy: f64,
}

/// What a batch gives.
pub struct Step {
    /// The mean of the losses, a scalar with gradients.
    pub loss: Tensor,
    /// How many answers were due, and how many were right.
    pub n: usize,
    pub right: f64,
}

/// The norm to which gradients are cut.
const LONGEST_GRADIENT: f64 = 5.0;

/// Trains until `epochs` are over or the validation loss has not fallen for `patience` of them; whenever it falls, `checkpoint` is
/// written. With `lengths`, clips of about the same length share a batch. Without a measure from `validate` it is written after
/// each epoch, and the last one counts. `forward` takes some of the `n_clips` clips; `validate` measures the model as it is.
pub fn fit(
    parameters: &Parameters,
    settings: &Settings,
    n_clips: usize,
    lengths: Option<&[usize]>,
    checkpoint: &Path,
    mut forward: impl FnMut(&[usize], &mut Random) -> Result<Step, Failure>,
    mut validate: impl FnMut() -> Result<Option<Measure>, Failure>,
) -> Result<(), Failure> {
    let params = ParamsAdamW { lr: settings.rate, weight_decay: settings.decay, ..Default::default() };
    let mut optimiser = AdamW::new(parameters.vars(), params)?;
    let n_batches = n_clips.div_ceil(settings.batch);
    let (mut best, mut since) = (f64::INFINITY, 0);
    for epoch in 0..settings.epochs {
        let start = Instant::now();
        let mut random = Random::stream(settings.seed, epoch as u64);
        let batches = batches(n_clips, settings.batch, lengths, &mut random);
        parameters.set_training(true);
        let (mut loss_sum, mut right, mut seen) = (0.0, 0.0, 0);
        for (i, clips) in batches.iter().enumerate() {
            let done = (epoch * n_batches + i) as f64 / (settings.epochs * n_batches) as f64;
            optimiser.set_learning_rate(settings.rate * schedule(done));
            let step = forward(clips, &mut random)?;
            let mut gradients = step.loss.backward()?;
            shorten(parameters, &mut gradients)?;
            optimiser.step(&gradients)?;
            loss_sum += f64::from(step.loss.to_scalar::<f32>()?) * step.n as f64;
            right += step.right;
            seen += step.n;
            let so_far = Measure { loss: loss_sum / seen as f64, accuracy: right / seen as f64 };
            progress(epoch + 1, settings.epochs, i + 1, n_batches, so_far)?;
        }
        parameters.set_training(false);
        let measure = validate()?;
        let loss = measure.map(|measure| measure.loss);
        let better = loss.is_none_or(|loss| loss < best);
        println!(
            "epoch {:3}: training loss {:.4}, accuracy {:.4}{}; {:.1} s{}",
            epoch + 1,
            loss_sum / seen as f64,
            right / seen as f64,
            measure.map_or(String::new(), |Measure { loss, accuracy }| {
                format!("; validation loss {loss:.4}, accuracy {accuracy:.4}")
            }),
            start.elapsed().as_secs_f64(),
            if better && loss.is_some() { " *" } else { "" }
        );
        since += 1;
        if better {
            (best, since) = (loss.unwrap_or(best), 0);
            parameters.save(checkpoint)?;
        }
        if since == settings.patience {
            println!("no better validation loss for {since} epochs");
            break;
        }
    }
    Ok(())
}

/// All clips in random order, in batches; of clips of similar length where lengths are given.
fn batches(n_clips: usize, size: usize, lengths: Option<&[usize]>, random: &mut Random) -> Vec<Vec<usize>> {
    let mut order = random.permutation(n_clips);
    let Some(lengths) = lengths else { return order.chunks(size).map(<[usize]>::to_vec).collect() };
    order.chunks_mut(12 * size).for_each(|some| some.sort_by_key(|&clip| lengths[clip]));
    let batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
    random.permutation(batches.len()).into_iter().map(|i| batches[i].clone()).collect()
}

/// The share of the highest learning rate after this share of the training.
fn schedule(done: f64) -> f64 {
    let rise = (done / 0.05).min(1.0);
    rise * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()).max(1e-3)
}

/// Scales all gradients so that they are no longer than [`LONGEST_GRADIENT`] together.
fn shorten(parameters: &Parameters, gradients: &mut GradStore) -> candle_core::Result<()> {
    let vars = parameters.vars();
    let mut squares = 0.0;
    for gradient in vars.iter().filter_map(|var| gradients.get(var)) {
        squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    if squares.sqrt() > LONGEST_GRADIENT {
        for var in &vars {
            if let Some(gradient) = gradients.get(var) {
                let shorter = (gradient * (LONGEST_GRADIENT / squares.sqrt()))?;
                gradients.insert(var, shorter);
            }
        }
    }
    Ok(())
}

/// A bar on stderr where that is a terminal.
fn progress(epoch: usize, epochs: usize, done: usize, n: usize, so_far: Measure) -> io::Result<()> {
    let mut stderr = io::stderr();
    if !stderr.is_terminal() {
        return Ok(());
    }
    let filled = 30 * done / n;
    let bar = "#".repeat(filled) + &"-".repeat(30 - filled);
    let Measure { loss, accuracy } = so_far;
    write!(stderr, "\x1b[Kepoch {epoch}/{epochs} [{bar}] {done}/{n} loss {loss:.4} accuracy {accuracy:.4}\r")?;
    if done == n {
        write!(stderr, "\x1b[K")?;
    }
    stderr.flush()
}
