//! Checkpoints.

use clipwise::models::detect;
use clipwise::{Detail, WaveformBatch, Weights, device};

/// The most values of a tensor that are read here; larger ones cost time and show nothing new.
const MAX_VALUES: usize = 1 << 20;

/// A checkpoint in any format. All tensors are read; if they look like a model, it is built and hears a short clip.
pub fn weights(data: &[u8]) {
    let Ok(weights) = Weights::from_bytes(data.to_vec()) else { return };
    let mut n_values = 0usize;
    for name in weights.names() {
        let shape = weights.shape(name).expect("a tensor that is listed has a shape");
        let size = shape.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim)).expect("a size was checked");
        n_values = n_values.saturating_add(size);
        if n_values <= MAX_VALUES
            && let Ok(values) = weights.to_vec(name)
        {
            assert_eq!(values.len(), size, "{name}");
        }
    }
    if n_values <= MAX_VALUES
        && let Ok(detected) = detect(&weights)
        && let Ok(model) = detected.config.load(&weights, &device::cpu())
    {
        let clip = vec![0.1; model.info().min_samples.min(1 << 16)];
        let batch = WaveformBatch::new(vec![clip], model.info().sample_rate).expect("a clip of a valid rate");
        if let Ok(output) = model.forward(&batch, Detail::Clip) {
            assert_eq!(output.clipwise_output.dims(), [1, model.info().n_classes]);
        }
    }
}
