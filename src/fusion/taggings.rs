//! Fusion of taggers: one tagging from several.

use super::{Average, shares};
use crate::error::{Error, Result};
use crate::output::{Embedding, OutputActivation, Tagging};
use crate::tensor::softmax;

/// Combines the results of several taggers for one clip, each with a weight. Only the ratios of the weights matter.
///
/// With [`Average::Logits`], the logits are the weighted mean of the members' logits, and the scores are their
/// activation. With [`Average::Probabilities`], the scores are the weighted mean of the members' scores, and the logits
/// are those with these scores as activation. The embeddings are normalised to length 1, multiplied by the square root
/// of the normalised weight and concatenated, so that the cosine similarity of two results is the weighted mean of the
/// members' similarities.
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
/// [`Error::Argument`] if there are no members, if weights are negative, not finite or all 0, if labels differ, if the
/// number of scores or logits differs from the number of labels, if values are NaN or infinite with both signs, or if
/// the result would be NaN: logits that are all −∞ or include +∞ with [`OutputActivation::Softmax`], or probabilities
/// outside `0..=1`.
pub fn fuse_taggings(members: &[(&Tagging, f64)], mode: Average, activation: OutputActivation) -> Result<Tagging> {
    let shares = shares(members.iter().map(|member| member.1))?;
    let (first, _) = members[0]; // exists, since shares are not empty
    let n_classes = first.labels.len();
    let (mut logits, mut scores) = (vec![0.0f64; n_classes], vec![0.0f64; n_classes]);
    let mut embedding = Vec::new();
    for (at, (&(member, _), &share)) in members.iter().zip(&shares).enumerate() {
        if !member.labels.iter().map(|label| &label.name).eq(first.labels.iter().map(|label| &label.name)) {
            let reason = "expected the labels of the first member";
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
            return Err(Error::argument("members", at, "expected numbers, got NaN"));
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
        return Err(Error::argument("members", "inf - inf", "expected infinite values of one sign only"));
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
        return Err(Error::argument("members", "NaN", "expected scores or logits that give probabilities"));
    }
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
    let labels = first.labels.clone();
    Ok(Tagging { scores: narrow(scores), logits: narrow(logits), embedding: Embedding(embedding), labels })
}
