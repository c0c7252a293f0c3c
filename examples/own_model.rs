//! A model of your own as a tagger: `cargo run --release --example own_model -- FILE`.
//!
//! It says how loud a clip is and how bright, from log-mel frames. Windows, streams, batches and labels come with [`Tagger`].

use clipwise::candle_core::{D, Device, Tensor};
use clipwise::frontend::{FrontEnd, LogMel, LogMelConfig};
use clipwise::models::{Detail, ModelInfo, TaggingModel, batch};
use clipwise::{LabelSet, Result, Tagger, TaggingOutput, Waveform, WaveformBatch};

struct LoudAndBright {
    info: ModelInfo,
    log_mel: LogMel,
}

impl LoudAndBright {
    fn new() -> Result<Self> {
        let log_mel = LogMel::new(&LogMelConfig::SPEECH_16K)?;
        let mut info = ModelInfo::new("loud-and-bright", log_mel.sample_rate(), 2, log_mel.n_features());
        info.min_samples = log_mel.samples_for(1); // shorter clips are padded with zeros
        Ok(Self { info, log_mel })
    }

    /// `[batch, n_frames, n_mels]` in dB to two logits per clip.
    fn decide(&self, log_mel: &Tensor) -> Result<TaggingOutput> {
        let embedding = log_mel.mean(1)?; // [batch, n_mels]
        let n_mels = embedding.dim(1)?;
        let (low, high) = (embedding.narrow(1, 0, n_mels / 2)?, embedding.narrow(1, n_mels / 2, n_mels / 2)?);
        let loud = ((embedding.mean_keepdim(D::Minus1)? + 40.0)? / 10.0)?; // 0 at -40 dB
        let bright = ((high.mean_keepdim(1)? - low.mean_keepdim(1)?)? / 10.0)?;
        TaggingOutput::multi_label(Tensor::cat(&[loud, bright], 1)?, embedding)
    }
}

impl TaggingModel for LoudAndBright {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn forward(&self, waveforms: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        let n_frames = |n_samples| self.log_mel.n_frames(n_samples);
        batch::forward_by_length(waveforms, &self.info, n_frames, |clips| {
            self.decide(&batch::features(&self.log_mel, clips, self.device())?.0)
        })
    }
}

fn main() -> Result<()> {
    let tagger = Tagger::new(LoudAndBright::new()?, ["loud", "bright"].into_iter().collect::<LabelSet>())?;
    for file in std::env::args().skip(1) {
        for tag in tagger.tag(&Waveform::open(&file)?)?.top_k(2) {
            println!("{file}  {:5.3}  {}", tag.score, tag.label);
        }
    }
    Ok(())
}
