//! A YAML tree that keeps every pair of a mapping, also those whose keys are equal. Knows no
//! lines: those are in the marked tree, which in turn keeps only the last of equal keys.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use saphyr::{AnnotatedMapping, AnnotatedNode, LoadableYamlNode, Tag, Yaml, YamlData};

/// A node. It equals itself and its clones only, so a mapping never takes two keys for one. Clones
/// share their content: an alias costs nothing, however often it is used.
#[derive(Clone)]
pub(super) struct Pairs<'input> {
    serial: u64,
    data: Rc<YamlData<'input, Pairs<'input>>>,
}

impl<'input> Pairs<'input> {
    fn new(data: YamlData<'input, Self>) -> Self {
        static SERIALS: AtomicU64 = AtomicU64::new(0);
        Self { serial: SERIALS.fetch_add(1, Ordering::Relaxed), data: Rc::new(data) }
    }

    /// The content.
    pub(super) fn data(&self) -> &YamlData<'input, Self> {
        &self.data
    }

    /// Whether the tree has at most `budget` nodes when every alias is written out.
    pub(super) fn fits(&self, budget: &mut usize) -> bool {
        let Some(left) = budget.checked_sub(1) else { return false };
        *budget = left;
        match &*self.data {
            YamlData::Sequence(items) => items.iter().all(|item| item.fits(budget)),
            YamlData::Mapping(pairs) => {
                pairs.iter().all(|(key, value)| key.fits(budget) && value.fits(budget))
            }
            YamlData::Tagged(_, inner) => inner.fits(budget),
            _ => true,
        }
    }
}

impl<'b> PartialEq<Pairs<'b>> for Pairs<'_> {
    fn eq(&self, other: &Pairs<'b>) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Pairs<'_> {}

impl Hash for Pairs<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.serial.hash(state);
    }
}

impl<'input> From<YamlData<'input, Self>> for Pairs<'input> {
    fn from(data: YamlData<'input, Self>) -> Self {
        Self::new(data)
    }
}

impl AnnotatedNode for Pairs<'_> {
    type HashKey<'a> = Pairs<'a>;

    fn parse_representation_recursive(&mut self) -> bool {
        Rc::make_mut(&mut self.data).parse_representation_recursive()
    }
}

impl<'input> LoadableYamlNode<'input> for Pairs<'input> {
    type HashKey = Self;

    fn from_bare_yaml(yaml: Yaml<'input>) -> Self {
        Self::new(match yaml {
            Yaml::Sequence(_) => YamlData::Sequence(Vec::new()),
            Yaml::Mapping(_) => YamlData::Mapping(AnnotatedMapping::new()),
            Yaml::Alias(id) => YamlData::Alias(id),
            Yaml::BadValue => YamlData::BadValue,
            Yaml::Representation(text, style, tag) => YamlData::Representation(text, style, tag),
            Yaml::Tagged(tag, node) => YamlData::Tagged(tag, Box::new(Self::from_bare_yaml(*node))),
            Yaml::Value(scalar) => YamlData::Value(scalar),
        })
    }

    fn is_sequence(&self) -> bool {
        self.data.is_sequence()
    }

    fn is_mapping(&self) -> bool {
        self.data.is_mapping()
    }

    fn is_badvalue(&self) -> bool {
        self.data.is_badvalue()
    }

    fn into_tagged(self, tag: Cow<'input, Tag>) -> Self {
        Self::new(YamlData::Tagged(tag, Box::new(self)))
    }

    fn sequence_mut(&mut self) -> &mut Vec<Self> {
        Rc::make_mut(&mut self.data).as_vec_mut().expect("the loader asked is_sequence first")
    }

    fn mapping_mut(&mut self) -> &mut AnnotatedMapping<'input, Self> {
        Rc::make_mut(&mut self.data).as_mapping_mut().expect("the loader asked is_mapping first")
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(YamlData::BadValue))
    }
}
