//! AudioSet's ontology: the classes above a class, including abstract ones.
//!
//! `ontology.csv` is made from `ontology.json` of audioset/ontology (version 1 of 2017, 632 classes): without descriptions, and
//! with parents in place of `child_ids`. Google, CC BY-SA 4.0 (see THIRD_PARTY_NOTICES.md).

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use super::{Label, LabelSet};

const CSV: &str = include_str!("ontology.csv");

/// A class of the ontology.
struct Class {
    id: &'static str,
    name: &'static str,
    parents: Vec<&'static str>, // machine ids
}

/// The classes, found by machine id or display name.
struct Ontology {
    classes: Vec<Class>,
    places: HashMap<&'static str, usize>,
}

impl Ontology {
    fn audioset() -> &'static Self {
        static AUDIOSET: OnceLock<Ontology> = OnceLock::new();
        AUDIOSET.get_or_init(|| Self::parse(CSV))
    }

    /// Reads rows of `id,name,parents` below a header, the name in quotes where it has a comma and without quotes inside.
    fn parse(csv: &'static str) -> Self {
        let classes: Vec<Class> = csv.lines().skip(1).filter_map(class).collect();
        let by_id = classes.iter().enumerate().map(|(place, class)| (class.id, place));
        let by_name = classes.iter().enumerate().map(|(place, class)| (class.name, place));
        Self { places: by_id.chain(by_name).collect(), classes }
    }

    fn find(&self, id_or_name: &str) -> Option<&Class> {
        self.places.get(id_or_name).map(|&place| &self.classes[place])
    }

    /// The classes above one, the nearest first.
    fn above(&self, class: &Class) -> Vec<&Class> {
        let mut above: Vec<&Class> = Vec::new();
        let mut next = 0;
        let mut parents = &class.parents;
        loop {
            for parent in parents.iter().filter_map(|id| self.find(id)) {
                if !above.iter().any(|known| known.id == parent.id) {
                    above.push(parent);
                }
            }
            match above.get(next) {
                Some(class) => parents = &class.parents,
                None => return above,
            }
            next += 1;
        }
    }
}

fn class(row: &'static str) -> Option<Class> {
    let (id, rest) = row.split_once(',')?;
    let (name, parents) = rest.rsplit_once(',')?;
    let parents = parents.split(';').filter(|id| !id.is_empty()).collect();
    Some(Class { id, name: name.trim_matches('"'), parents })
}

impl LabelSet {
    /// Fills in [`Label::parents`] from AudioSet's ontology, for classes without parents. A class is looked up by its machine
    /// id, or by its exact display name if it has no id. Classes that are not in the ontology do not change.
    pub fn with_audioset_parents(&self) -> Self {
        let ontology = Ontology::audioset();
        let found = |label: &Label| ontology.find(label.id.as_deref().unwrap_or(&label.name));
        // Parents get the set's own spelling: AudioSet Strong says `Bicycle, tricycle` for `Bicycle`.
        let names: HashMap<&str, &str> =
            self.iter().filter_map(|label| Some((found(label)?.id, &*label.name))).collect();
        let with_parents = |label: &Label| match found(label) {
            Some(class) if label.parents.is_empty() => {
                let name = |class: &Class| names.get(class.id).unwrap_or(&class.name).to_string();
                Label { parents: ontology.above(class).into_iter().map(name).collect(), ..label.clone() }
            }
            _ => label.clone(),
        };
        self.iter().map(with_parents).collect()
    }

    /// The indices of the classes of this set above a class, nearest first: its [`parents`](Label::parents), their parents, and
    /// so on. Empty if `index` is out of range.
    ///
    /// ```
    /// let labels = clipwise::LabelSet::audioset();
    /// let bark = labels.index_of("Bark").unwrap();
    /// let names: Vec<_> = labels.ancestors(bark).iter().map(|&i| &labels[i].name).collect();
    /// assert_eq!(names, ["Dog", "Domestic animals, pets", "Animal"]);
    /// ```
    pub fn ancestors(&self, index: usize) -> Vec<usize> {
        self.above(index, &self.places())
    }

    /// Removes the classes that are above another of the given classes, and keeps the order. `Animal`, `Dog`, `Rain` become
    /// `Dog`, `Rain`.
    pub fn most_specific(&self, indices: &[usize]) -> Vec<usize> {
        let places = self.places();
        let above: HashMap<usize, HashSet<usize>> =
            indices.iter().map(|&index| (index, self.above(index, &places).into_iter().collect())).collect();
        // In a label file, two classes can be above each other. Neither is then more specific.
        let is_below = |class: &usize, other: &usize| above.get(class).is_some_and(|own| own.contains(other));
        let general: HashSet<usize> =
            above.iter().flat_map(|(lower, own)| own.iter().filter(|upper| !is_below(upper, lower))).copied().collect();
        indices.iter().copied().filter(|index| !general.contains(index)).collect()
    }

    /// The index of each name. If two classes share a name, the first one counts.
    fn places(&self) -> HashMap<&str, usize> {
        self.iter().enumerate().rev().map(|(place, label)| (&*label.name, place)).collect()
    }

    fn above(&self, index: usize, places: &HashMap<&str, usize>) -> Vec<usize> {
        let mut above = Vec::new();
        let mut class = self.get(index);
        let mut next = 0;
        while let Some(label) = class {
            for &place in label.parents.iter().filter_map(|name| places.get(&**name)) {
                if place != index && !above.contains(&place) {
                    above.push(place);
                }
            }
            class = above.get(next).and_then(|&place| self.get(place));
            next += 1;
        }
        above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of `ontology.json`, and some of its paths.
    #[test]
    fn the_table_has_the_classes_and_the_arrows_of_the_published_file() {
        let ontology = Ontology::audioset();
        assert_eq!(ontology.classes.len(), 632);
        assert_eq!(ontology.places.len(), 2 * 632, "no name or id twice");
        let parents = || ontology.classes.iter().flat_map(|class| &class.parents);
        assert_eq!(parents().count(), 670);
        assert!(parents().all(|id| id.starts_with('/') && ontology.find(id).is_some()));
        let roots = ontology.classes.iter().filter(|class| class.parents.is_empty()).map(|class| class.name);
        assert_eq!(
            roots.collect::<Vec<_>>(),
            [
                "Human sounds",
                "Animal",
                "Music",
                "Natural sounds",
                "Sounds of things",
                "Source-ambiguous sounds",
                "Channel, environment and background"
            ]
        );
        let above = |name| {
            let class = ontology.find(name).unwrap();
            ontology.above(class).iter().map(|class| class.name).collect::<Vec<_>>()
        };
        assert_eq!(above("/m/05tny_"), ["Dog", "Domestic animals, pets", "Animal"]); // Bark
        assert_eq!(above("Speech"), ["Human voice", "Human sounds"]);
        assert_eq!(
            above("Hiss"),
            [
                "Cat",
                "Snake",
                "Steam",
                "Onomatopoeia",
                "Domestic animals, pets",
                "Wild animals",
                "Water",
                "Source-ambiguous sounds",
                "Animal",
                "Natural sounds"
            ]
        );
        assert_eq!(above("Music"), [""; 0]);
    }

    #[test]
    fn audioset_has_the_parents_of_its_ontology() {
        let labels = LabelSet::audioset();
        let parents = |labels: &LabelSet, name: &str| labels[labels.index_of(name).unwrap()].parents.clone();
        assert_eq!(parents(&labels, "Bark"), ["Dog", "Domestic animals, pets", "Animal"]);
        assert_eq!(parents(&labels, "Speech"), ["Human voice", "Human sounds"]);
        let roots = labels.iter().filter(|label| label.parents.is_empty()).map(|label| &*label.name);
        assert_eq!(roots.collect::<Vec<_>>(), ["Animal", "Music"]);
        assert!(
            LabelSet::yamnet()
                .iter()
                .chain(&*LabelSet::audioset_by_name())
                .all(|label| { label.parents == labels[labels.index_of(&label.name).unwrap()].parents })
        );
        let speech = labels.index_of("Speech").unwrap();
        assert_eq!(labels.ancestors(speech), [0; 0], "abstract classes have no place among the 527");
        assert_eq!(labels.ancestors(527), [0; 0]);
        let strong = LabelSet::audioset_strong();
        assert_eq!(
            strong.iter().filter(|label| label.parents.is_empty()).count(),
            35,
            "31 unknown ones and 4 at the top"
        );
        assert_eq!(parents(&strong, "Bicycle bell")[1], "Bicycle, tricycle", "its own spelling");
    }

    #[test]
    fn a_label_file_of_audioset_gets_its_parents_by_id_or_name() {
        let with_parents = |text: &str| LabelSet::parse(text).unwrap().with_audioset_parents();
        let audioset = LabelSet::audioset();
        assert_eq!(with_parents(super::super::AUDIOSET_CSV), audioset);
        let names = audioset.iter().map(|label| label.name.clone()).collect::<LabelSet>().with_audioset_parents();
        assert!(names.iter().zip(&*audioset).all(|(a, b)| a.parents == b.parents));
        let own = with_parents("mid,name,parents\n/m/0bt9lr,Hund,\n,Dog,Pets\n/x/1,Dog,\n,dog,\n");
        let parents: Vec<Vec<&str>> = own.iter().map(|l| l.parents.iter().map(String::as_str).collect()).collect();
        assert_eq!(parents[0], ["Domestic animals, pets", "Animal"]);
        assert_eq!(parents[1..], [vec!["Pets"], vec![], vec![]], "its own parents, another id, another name");
    }

    #[test]
    fn the_most_specific_classes_are_above_none_of_the_others() {
        let labels = LabelSet::audioset();
        let most_specific = |names: &[&str]| {
            let indices: Vec<usize> = names.iter().map(|name| labels.index_of(name).unwrap()).collect();
            labels.most_specific(&indices).into_iter().map(|index| labels[index].name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(most_specific(&["Animal", "Rain", "Bark", "Dog", "Vehicle"]), ["Rain", "Bark", "Vehicle"]);
        assert_eq!(most_specific(&["Hiss", "Steam", "Cat", "Insect"]), ["Hiss", "Insect"], "each of several parents");
        assert_eq!(most_specific(&[]), [""; 0]);
        // Parents of parents, in a file that gives the nearest ones only; a circle; a class that is its own parent.
        let file = "name,parents\nBark,Dog\nDog,Animal\nAnimal,\nEgg,Hen\nHen,Egg\nSelf,Self\n";
        let labels = LabelSet::parse(file).unwrap();
        assert_eq!(labels.ancestors(0), [1, 2]);
        assert_eq!(labels.ancestors(3), [4]);
        assert_eq!(labels.most_specific(&[2, 0, 3, 4, 5]), [0, 3, 4, 5]);
    }
}
