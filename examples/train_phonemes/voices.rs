//! Who speaks: synthesiser, accent, voice, pitch and rate, drawn at random.

use clipwise::augment::Random;

/// espeak-ng's accents, the first five times as often as each other one. The last is kept for the test with unseen voices.
const ACCENTS: [&str; 5] = ["en-us", "en-gb", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland"];

/// espeak-ng's voices to train on: those that do not whisper, croak or play a robot. Without a name, the accent's own.
const VARIANTS: [&str; 53] = [
    "",
    "m1",
    "m2",
    "m3",
    "m4",
    "m6",
    "m7",
    "m8",
    "f1",
    "f2",
    "f3",
    "f5",
    "klatt",
    "klatt2",
    "klatt3",
    "klatt5",
    "Alex",
    "Alicia",
    "Andy",
    "Annie",
    "Denis",
    "Diogo",
    "Gene",
    "Henrique",
    "Hugo",
    "Jacky",
    "Lee",
    "Marco",
    "Mario",
    "Mike",
    "Nguyen",
    "RicishayMax",
    "adam",
    "antonio",
    "aunty",
    "belinda",
    "boris",
    "caleb",
    "david",
    "ed",
    "edward",
    "gustave",
    "iven",
    "iven3",
    "john",
    "linda",
    "marcelo",
    "max",
    "michel",
    "miguel",
    "norbert",
    "steph",
    "victor",
];

/// Those kept for the test with unseen voices.
const UNSEEN_VARIANTS: [&str; 12] =
    ["m5", "f4", "klatt4", "Andrea", "Michael", "anika", "benjamin", "grandma", "pablo", "quincy", "rob", "zac"];

/// flite's voices, whose sounds come from recordings of one person each.
const FLITE: [&str; 3] = ["kal16", "rms", "slt"];
/// The one kept for the test with unseen voices.
const UNSEEN_FLITE: &str = "awb";

/// How something is said.
#[derive(Debug, Clone, PartialEq)]
pub enum Voice {
    /// espeak-ng's `-v NAME -s RATE -p PITCH -g GAP`.
    Espeak { name: String, rate: usize, pitch: usize, gap: usize },
    /// flite's `-voice NAME`, with its durations times `stretch` and the mean of its pitch in Hz.
    Flite { name: &'static str, stretch: f64, pitch: f64 },
}

impl Voice {
    /// A voice to train on, or an unseen one. `flite` is the share of flite's.
    pub fn draw(unseen: bool, flite: f64, random: &mut Random) -> Self {
        let mut between = |low: f64, high: f64| low + (high - low) * random.uniform();
        if between(0.0, 1.0) < flite {
            let stretch = between(0.8, 1.3);
            let pitch = between(0.8, 1.3);
            let name = if unseen { UNSEEN_FLITE } else { FLITE[random.below(FLITE.len())] };
            let usual = if name == "slt" { 170.0 } else { 110.0 };
            return Self::Flite { name, stretch, pitch: usual * pitch };
        }
        let (rate, pitch) = (between(110.0, 210.0) as usize, between(20.0, 80.0) as usize);
        let gap = if between(0.0, 1.0) < 0.3 { 1 + random.below(3) } else { 0 };
        let n_accents = ACCENTS.len();
        let accent = match random.below(2 * (n_accents - 1)) {
            i if i < n_accents - 1 => ACCENTS[i],
            _ => ACCENTS[0],
        };
        let variants = if unseen { &UNSEEN_VARIANTS[..] } else { &VARIANTS[..] };
        let variant = variants[random.below(variants.len())];
        let accent = if unseen && random.below(4) == 0 { ACCENTS[n_accents - 1] } else { accent };
        let name = if variant.is_empty() { accent.to_string() } else { format!("{accent}+{variant}") };
        Self::Espeak { name, rate, pitch, gap }
    }

    /// Its name and what is set, for the list of a data set.
    pub fn describe(&self) -> String {
        match self {
            Self::Espeak { name, rate, pitch, gap } => format!("espeak:{name}:{rate}:{pitch}:{gap}"),
            Self::Flite { name, stretch, pitch } => format!("flite:{name}:{stretch:.2}:{pitch:.0}"),
        }
    }
}
