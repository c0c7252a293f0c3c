//! Taggers: one tagging of several.

use super::{Average, shares};
use crate::error::{Error, Result};
use crate::output::{Embedding, OutputActivation, Tagging};
use crate::tensor::softmax;

/// One result of several taggers about one clip, each with a weight of which only the ratio to the others matters.
///
/// [`Average::Logits`]: the weighted mean of the logits, and its activation as scores. [`Average::Probabilities`]: the weighted mean
/// of the scores, and as logits what has them as its activation. The embeddings are joined in order, each multiplied by
/// the square root of its weight's share and divided by its norm: the cosine of two is the weighted mean of the members'.
///
/// ```no_run
/// use clipwise::fusion::{Average, fuse_taggings};
/// use clipwise::models::OutputActivation;
/// use clipwise::{Tagger, Waveform};
///
/// # fn main() -> clipwise::Result<()> {
/// let device = clipwise::device::best()?;
/// let (ced, cnn) = (Tagger::open("ced-base.safetensors", &device)?, Tagger::open("Cnn14_mAP=0.431.pth", &device)?);
/// let clip = Waveform::open("dog.wav")?;
/// let both = fuse_taggings(&[(&ced.tag(&clip)?, 0.6), (&cnn.tag(&clip)?, 0.4)], Average::Logits, OutputActivation::Sigmoid)?;
/// println!("{:?}", both.top_k(3));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Argument`] without members, for weights that are negative, not finite or all 0, labels that differ, numbers of
/// scores or logits that are not those of the labels, values that are NaN or infinite with both signs, and results that would be
/// NaN: logits of which all are −∞ or one is +∞ with [`OutputActivation::Softmax`], probabilities outside 0..=1.
pub fn fuse_taggings(members: &[(&Tagging, f64)], mode: Average, activation: OutputActivation) -> Result<Tagging> {
    let shares = shares(members.iter().map(|member| member.1))?;
    let (first, _) = members[0]; // there is one: shares are not empty
    let n_classes = first.labels.len();
    let (mut logits, mut scores) = (vec![0.0f64; n_classes], vec![0.0f64; n_classes]);
    let mut embedding = Vec::new();
    for (at, (&(member, _), &share)) in members.iter().zip(&shares).enumerate() {
        if !member.labels.iter().map(|label| &label.name).eq(first.labels.iter().map(|label| &label.name)) {
            let reason = "its labels differ from those of the first one, so that its scores mean other classes";
            return Err(Error::argument("members", at, reason));
        }
        if member.logits.len() != n_classes || member.scores.len() != n_classes {
            return Err(Error::argument(
                "members",
                at,
                format!("expected a score and a logit for each of {n_classes} labels"),
            ));
        }
        let wanted = if mode == Average::Logits { &member.logits } else { &member.scores };
        if wanted.iter().any(|x| x.is_nan()) {
            return Err(Error::argument("members", at, "it holds NaN"));
        }
        if share > 0.0 {
            for class in 0..n_classes {
                logits[class] += share * f64::from(member.logits[class]);
                scores[class] += share * f64::from(member.scores[class]);
            }
        }
        let norm = member.embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { share.sqrt() / norm } else { 0.0 };
        embedding.extend(member.embedding.iter().map(|&x| (f64::from(x) * scale) as f32));
    }
    let averaged = if mode == Average::Logits { &logits } else { &scores };
    if averaged.iter().any(|x| x.is_nan()) {
        return Err(Error::argument("members", "inf - inf", "infinite values of both signs have no mean"));
    }
    match (mode, activation) {
        (Average::Logits, OutputActivation::Sigmoid) => {
            scores = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()
        }
        (Average::Logits, OutputActivation::Softmax) => scores = softmax(logits.iter().copied()),
        (Average::Probabilities, OutputActivation::Sigmoid) => {
            logits = scores.iter().map(|p| p.ln() - (-p).ln_1p()).collect()
        }
        (Average::Probabilities, OutputActivation::Softmax) => logits = scores.iter().map(|p| p.ln()).collect(),
    }
    if scores.iter().chain(&logits).any(|x| x.is_nan()) {
        return Err(Error::argument("members", "NaN", "their scores or logits have no probabilities"));
    }
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
    let labels = first.labels.clone();
    Ok(Tagging { scores: narrow(scores), logits: narrow(logits), embedding: Embedding(embedding), labels })
}
