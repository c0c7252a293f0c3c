//! What is said: phrases of a few words, frequent ones and any ones, without sense.

use std::collections::BTreeSet;
use std::path::Path;

use clipwise::augment::Random;

use crate::training::Failure;

/// Half of the words come from here, as they make up much of what people say and are said less clearly.
const FREQUENT: &str = "a about after again all also always an and any are as ask at away back be because been before being \
    best better between big both but by came can can't come could country day did didn't different do does doing don't \
    down each end even ever every far few find first five for found four from get give go going good great had hand hard \
    has have he help her here high him his home house how I I'm if in into is it it's its just keep kind know large last \
    left let life like line little live long look made make man many may me men might more most much must my name need \
    never new next night no not nothing now number of off often old on once one only open or other our out over own part \
    people place point put read right said same saw say school second see seem set seven she should show side since six \
    small so some something sound spell still stop story study such take tell ten than that that's the their them then \
    there these they thing think this those thought three through time to today together too took tree try turn two under \
    until up us use very want was water way we well went were what when where which while white who whole why will with \
    without word work world would write year you young your";

/// The words that are drawn from.
pub struct Words {
    frequent: Vec<String>,
    others: Vec<String>,
}

impl Words {
    /// From a list with a word a line, of which those of 2 to 12 letters count that are written in lower case. One in twenty,
    /// by its letters, is `held_out`: the test's words, never those of the training.
    pub fn read(list: &Path, held_out: bool) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
        let frequent: BTreeSet<&str> = FREQUENT.split_whitespace().collect();
        let word =
            |word: &&str| (2..=12).contains(&word.len()) && word.bytes().all(|letter| letter.is_ascii_lowercase());
        let hash = |word: &str| word.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(16_777_619) ^ u32::from(byte));
        let chosen = |word: &&str| !frequent.contains(word) && hash(word).is_multiple_of(20) == held_out;
        let text = text.trim_start_matches('\u{feff}');
        let others: Vec<String> = text.lines().filter(word).filter(chosen).map(str::to_string).collect();
        if others.len() < 100 {
            return Err(format!("{}: expected a list of words, one per line", list.display()).into());
        }
        let frequent = if held_out { Vec::new() } else { frequent.into_iter().map(str::to_string).collect() };
        Ok(Self { frequent, others })
    }

    /// A phrase of 2 to 7 words, sometimes with a comma; of held-out words only, 1 to 4.
    pub fn phrase(&self, random: &mut Random) -> String {
        let n = if self.frequent.is_empty() { 1 + random.below(4) } else { 2 + random.below(6) };
        let mut phrase = String::new();
        for i in 0..n {
            if i > 0 {
                phrase += if random.below(12) == 0 { ", " } else { " " };
            }
            let words = if !self.frequent.is_empty() && random.below(2) == 0 { &self.frequent } else { &self.others };
            phrase += &words[random.below(words.len())];
        }
        phrase
    }
}
