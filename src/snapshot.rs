//! Snapshots of a project's types: what is recorded of each file, and what differs between two.
//!
//! A type is a name together with its kind and type, at a location that is typed; where that lies does not tell types
//! apart. So a file is the multiset of its types, and what differs takes the one multiset to the other. Which of several
//! equal types came or went is told by aligning both files' types in order.
//!
//! Pure data. Where they are kept is left to `store`, how they come about to `update`.

use std::collections::{HashMap, VecDeque};

use imara_diff::{Algorithm, Diff, InternedInput};
use serde::{Deserialize, Serialize};

use crate::model::{
    Details, Digest, Encoding, FileTypes, InferredType, Outcome, Position, Selector, Symbol, SymbolKind,
};

/// What a snapshot records of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recorded {
    /// Its types.
    Types(FileTypes),
    /// Why it could not be exported.
    Failed(String),
}

/// How all of a snapshot's files were exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// Which names.
    pub selector: Selector,
    /// The unit of all columns.
    pub encoding: Encoding,
    /// What was returned beside the types.
    pub details: Details,
}

/// A type that stands in one snapshot and not, or otherwise, in the other; one side at least is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// None where the type was added.
    pub before: Option<&'a InferredType>,
    /// None where the type was removed.
    pub after: Option<&'a InferredType>,
}

/// How many types differ between two snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Only in the newer one.
    pub added: u64,
    /// Only in the older one.
    pub removed: u64,
    /// In both, with another kind or type.
    pub modified: u64,
}

/// Why a file's types can't be looked up in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// It is not there.
    #[error("the snapshot has no file {0}")]
    NoFile(String),
    /// It could not be exported.
    #[error("the file could not be exported: {0}")]
    Failed(String),
    /// It was of other bytes.
    #[error("the SHA-256 of the bytes that were exported is {actual}, not the expected one")]
    DigestDiffers {
        /// Of the bytes that were exported.
        actual: String,
    },
    /// Nothing is stored of a text that was never exported.
    #[error("a snapshot holds what was on disk; export the text instead")]
    Overlay,
    /// Names are not stored by their kind.
    #[error("the snapshot was exported with {0:?}, so that other names can't be picked from it")]
    OtherSelector(Selector),
}

impl Recorded {
    /// As bytes to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// From the bytes that were stored; none where they are damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Its types.
    ///
    /// # Errors
    /// [`LookupError::Failed`].
    pub fn types(self) -> Result<FileTypes, LookupError> {
        match self {
            Self::Types(file) => Ok(file),
            Self::Failed(reason) => Err(LookupError::Failed(reason)),
        }
    }

    fn typed(&self) -> Vec<&InferredType> {
        match self {
            Self::Types(file) => file.types.iter().filter(|inferred| inferred.outcome == Outcome::Typed).collect(),
            Self::Failed(_) => Vec::new(),
        }
    }
}

/// The digest of the bytes that were exported, from the bytes of a [`Recorded`] that were stored; the inner one is none
/// where the file could not be exported, the outer one where the bytes are damaged.
#[must_use]
pub fn recorded_digest(bytes: &[u8]) -> Option<Option<Digest>> {
    /// What the bytes begin with.
    #[derive(Deserialize)]
    enum Head {
        Types(Digest),
        Failed,
    }
    Some(match postcard::from_bytes(bytes).ok()? {
        Head::Types(digest) => Some(digest),
        Head::Failed => None,
    })
}

impl Form {
    /// As bytes to be stored.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        postcard::to_stdvec(&self).unwrap_or_default()
    }

    /// From the bytes that were stored; none where they are damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// What is otherwise in another form, in words; none where nothing is.
    #[must_use]
    pub fn difference(self, other: Self) -> Option<String> {
        let Self { selector, encoding, details } = self;
        let mut parts = Vec::new();
        if selector != other.selector {
            parts.push(format!("selectors {selector:?} and {:?}", other.selector));
        }
        if encoding != other.encoding {
            parts.push(format!("position encodings {encoding:?} and {:?}", other.encoding));
        }
        if details != other.details {
            parts.push(format!("details {} and {}", words(details), words(other.details)));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn words(Details { hover, documentation, definitions }: Details) -> String {
    let named = [(hover, "hover"), (documentation, "documentation"), (definitions, "definitions")];
    let named: Vec<_> = named.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect();
    if named.is_empty() { "none".into() } else { named.join("+") }
}

impl Delta {
    /// Counts changes.
    #[must_use]
    pub fn of(changes: &[Change<'_>]) -> Self {
        let mut delta = Self::default();
        for change in changes {
            match (change.before, change.after) {
                (Some(_), Some(_)) => delta.modified += 1,
                (Some(_), None) => delta.removed += 1,
                (None, _) => delta.added += 1,
            }
        }
        delta
    }
}

impl std::ops::Add for Delta {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            added: self.added + other.added,
            removed: self.removed + other.removed,
            modified: self.modified + other.modified,
        }
    }
}

/// What tells types apart.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Type<'a> {
    name: &'a str,
    kind: SymbolKind,
    text: &'a str,
}

impl<'a> Type<'a> {
    fn of(inferred: &'a InferredType) -> Self {
        Self { name: &inferred.name, kind: inferred.symbol.kind, text: &inferred.symbol.type_text }
    }
}

/// What differs in a file, about in the order of places. One that is not there, or could not be exported, has no types.
///
/// The types that stand before changes are exactly those of the older file that the newer one has fewer of; those after
/// them, those that it has more of.
#[must_use]
pub fn diff<'a>(before: Option<&'a Recorded>, after: Option<&'a Recorded>) -> Vec<Change<'a>> {
    let before = before.map(Recorded::typed).unwrap_or_default();
    let after = after.map(Recorded::typed).unwrap_or_default();
    let mut input = InternedInput::default();
    input.update_before(before.iter().map(|inferred| Type::of(inferred)));
    input.update_after(after.iter().map(|inferred| Type::of(inferred)));
    let hunks: Vec<_> = Diff::compute(Algorithm::Histogram, &input).hunks().collect();

    // What moved stands in one hunk as removed and in another as added.
    let mut left: HashMap<_, (usize, usize)> = HashMap::new();
    for hunk in &hunks {
        input.before[span(&hunk.before)].iter().for_each(|token| left.entry(token.0).or_default().0 += 1);
        input.after[span(&hunk.after)].iter().for_each(|token| left.entry(token.0).or_default().1 += 1);
    }
    for (removed, added) in left.values_mut() {
        let moved = (*removed).min(*added);
        (*removed, *added) = (moved, moved);
    }

    let mut changes = Vec::new();
    for hunk in hunks {
        let mut added = Vec::new();
        let mut by_name: HashMap<&str, VecDeque<usize>> = HashMap::new();
        for (inferred, token) in after[span(&hunk.after)].iter().zip(&input.after[span(&hunk.after)]) {
            let (_, moved) = left.entry(token.0).or_default();
            if *moved > 0 {
                *moved -= 1;
                continue;
            }
            by_name.entry(&inferred.name).or_default().push_back(added.len());
            added.push(Some(*inferred));
        }
        for (inferred, token) in before[span(&hunk.before)].iter().zip(&input.before[span(&hunk.before)]) {
            let (moved, _) = left.entry(token.0).or_default();
            if *moved > 0 {
                *moved -= 1;
                continue;
            }
            let same = by_name.get_mut(inferred.name.as_str()).and_then(VecDeque::pop_front);
            changes.push(Change { before: Some(inferred), after: same.and_then(|index| added[index].take()) });
        }
        changes.extend(added.into_iter().flatten().map(|inferred| Change { before: None, after: Some(inferred) }));
    }
    changes
}

fn span(range: &std::ops::Range<u32>) -> std::ops::Range<usize> {
    range.start as usize..range.end as usize
}

/// What is stored at these places of a file, in the unit in which it was exported.
///
/// A place anywhere within a name finds it, and a name's end belongs to it unless another begins there. Where there is
/// none, there is no type.
#[must_use]
pub fn look_up(file: &FileTypes, places: &[Position]) -> Vec<InferredType> {
    let start = |inferred: &InferredType| inferred.range.map_or(inferred.location, |range| range.start);
    let mut types: Vec<&InferredType> = file.types.iter().collect();
    types.sort_by_key(|inferred| start(inferred));
    let found = |&place: &Position| {
        let after = types.partition_point(|inferred| start(inferred) <= place);
        let last = after.checked_sub(1).map(|index| types[index]);
        let is_here = |inferred: &&InferredType| place <= inferred.range.map_or(inferred.location, |range| range.end);
        match last.filter(is_here) {
            Some(inferred) => InferredType { location: place, ..inferred.clone() },
            None => InferredType {
                location: place,
                outcome: Outcome::NoType,
                range: None,
                name: String::new(),
                symbol: Symbol::default(),
                definitions: Vec::new(),
            },
        }
    };
    places.iter().map(found).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Evaluation, Range};

    const KINDS: [SymbolKind; 2] = [SymbolKind::Variable, SymbolKind::Parameter];

    /// Types on lines of their own, from `first` on; `x:int` is a variable, `?` has no type.
    fn file(first: u32, types: &[&str]) -> Recorded {
        let types = types.iter().zip(first..).map(|(text, line)| {
            let (name, text) = text.split_once(':').unwrap_or_default();
            inferred(line, name, SymbolKind::Variable, text)
        });
        recorded(types.collect())
    }

    fn inferred(line: u32, name: &str, kind: SymbolKind, text: &str) -> InferredType {
        let at = |character| Position { line, character };
        let is_typed = !name.is_empty();
        InferredType {
            location: at(4),
            outcome: if is_typed { Outcome::Typed } else { Outcome::NoType },
            range: is_typed.then(|| Range { start: at(4), end: at(4 + u32::try_from(name.len()).unwrap()) }),
            name: name.into(),
            symbol: Symbol { kind, type_text: text.into(), ..Symbol::default() },
            definitions: Vec::new(),
        }
    }

    fn recorded(types: Vec<InferredType>) -> Recorded {
        Recorded::Types(FileTypes { digest: Digest::of(b""), types, evaluation: Evaluation::Isolated })
    }

    /// As `+x:int@3`, `-x:int@3`, `~x:int@3 x:str@4`.
    fn told(before: &Recorded, after: &Recorded) -> Vec<String> {
        let word = |inferred: &InferredType| {
            format!("{}:{}@{}", inferred.name, inferred.symbol.type_text, inferred.location.line)
        };
        let told = diff(Some(before), Some(after)).into_iter().map(|change| match (change.before, change.after) {
            (Some(before), Some(after)) => format!("~{} {}", word(before), word(after)),
            (Some(before), None) => format!("-{}", word(before)),
            (None, after) => format!("+{}", word(after.unwrap())),
        });
        told.collect()
    }

    #[test]
    fn where_a_type_stands_makes_no_difference() {
        let types = ["a:int", "b:str", "?", "a:int", "f:() -> int", "g:() -> str"];
        assert_eq!(told(&file(0, &types), &file(7, &types)), [""; 0]);
        let moved = ["f:() -> int", "g:() -> str", "a:int", "b:str", "?", "?", "a:int"];
        assert_eq!(told(&file(0, &types), &file(0, &moved)), [""; 0]);
    }

    #[test]
    fn tells_which_types_came_went_and_changed() {
        let before = file(0, &["a:int", "b:int", "c:int", "a:int"]);
        assert_eq!(told(&before, &file(1, &["a:int", "b:str", "c:int", "a:int"])), ["~b:int@1 b:str@2"]);
        assert_eq!(told(&before, &file(0, &["a:int", "d:int", "c:int", "a:int"])), ["-b:int@1", "+d:int@1"]);
        assert_eq!(told(&before, &file(0, &["a:int", "b:int", "c:int"])), ["-a:int@3"]);
        assert_eq!(told(&before, &file(0, &["a:int", "b:int", "n:int", "c:int", "a:int"])), ["+n:int@2"]);
        assert_eq!(
            told(&file(0, &["x:int", "x:str"]), &file(0, &["x:a", "x:b"])),
            ["~x:int@0 x:a@0", "~x:str@1 x:b@1"]
        );
        let other_kind = recorded(vec![inferred(0, "b", SymbolKind::Parameter, "int")]);
        assert_eq!(told(&file(0, &["b:int"]), &other_kind), ["~b:int@0 b:int@0"]);
    }

    #[test]
    fn a_file_that_is_not_there_or_failed_has_no_types() {
        let (some, failed) = (file(0, &["a:int", "?"]), Recorded::Failed("why".into()));
        assert_eq!(told(&some, &failed), ["-a:int@0"]);
        assert_eq!(told(&failed, &some), ["+a:int@0"]);
        assert_eq!(diff(None, Some(&some)).len(), 1);
        assert_eq!(diff(Some(&some), None).len(), 1);
        assert_eq!(Delta::of(&diff(Some(&some), None)), Delta { added: 0, removed: 1, modified: 0 });
    }

    #[test]
    fn large_files_are_compared_quickly() {
        const NAMES: u32 = 50_000;
        let all = |name: &dyn Fn(u32) -> u32| {
            let typed = |line| inferred(line, &format!("n{}", name(line)), SymbolKind::Variable, "int");
            recorded((0..NAMES).map(typed).collect())
        };
        let some = |line: u32| (line.wrapping_mul(2_654_435_761) >> 16) % 900;
        let few = |line: u32| some(line) % 40;
        let begun = std::time::Instant::now();
        let files = [
            ("backwards", all(&|line| line), all(&|line| NAMES - 1 - line)),
            ("shuffled", all(&|line| line), all(&|line| line * 7919 % NAMES)),
            ("all the same", all(&|_| 0), all(&|line| u32::from(line == 0))),
            ("every tenth is new", all(&some), all(&|line| if line.is_multiple_of(10) { line } else { some(line) })),
            ("few names, often", all(&few), all(&|line| few(line ^ 0x1234))),
        ];
        for (what, before, after) in &files {
            let changes = diff(Some(before), Some(after));
            assert!(apply(before, &changes) == bag(after), "{what}");
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_place_within_a_name_finds_it() {
        let types = [(0, "ab", 1), (0, "?", 4), (0, "cd", 8), (0, "e", 10)].map(|(line, name, column)| {
            let mut found = inferred(line, name.trim_matches('?'), SymbolKind::Variable, "int");
            let at = |character| Position { line, character };
            found.location = at(column);
            found.range =
                found.range.map(|_| Range { start: at(column), end: at(column + u32::try_from(name.len()).unwrap()) });
            found
        });
        let Recorded::Types(file) = recorded(types.into_iter().rev().collect()) else { unreachable!() };
        let found = |line, character| {
            let place = Position { line, character };
            let found = look_up(&file, &[place]).remove(0);
            assert_eq!(found.location, place);
            assert_eq!(found.outcome == Outcome::Typed, !found.name.is_empty());
            found.name
        };
        let names: Vec<String> = (0..13).map(|character| found(0, character)).collect();
        assert_eq!(names, ["", "ab", "ab", "ab", "", "", "", "", "cd", "cd", "e", "e", ""]);
        assert_eq!(found(1, 1), "");
        assert_eq!(found(u32::MAX, u32::MAX), "");
    }

    #[test]
    fn a_digest_is_read_without_the_types() {
        let some = file(0, &["a:int"]);
        assert_eq!(recorded_digest(&some.to_bytes()), Some(Some(Digest::of(b""))));
        assert_eq!(recorded_digest(&Recorded::Failed("why".into()).to_bytes()), Some(None));
        assert_eq!(recorded_digest(b"\x07"), None);
        assert_eq!(Recorded::from_bytes(&some.to_bytes()), Some(some));
    }

    #[test]
    fn says_how_forms_differ() {
        let form = Form { selector: Selector::Names, encoding: Encoding::Utf16, details: Details::default() };
        assert_eq!(form.difference(form), None);
        let details = Details { hover: true, documentation: true, ..Details::default() };
        let other = Form { selector: Selector::Declarations, encoding: Encoding::Utf8, details };
        let told = "selectors Names and Declarations, position encodings Utf16 and Utf8, details none and \
             hover+documentation";
        assert_eq!(form.difference(other).as_deref(), Some(told));
        assert_eq!(Form::from_bytes(&other.to_bytes()), Some(other));
    }

    type Bag<'a> = HashMap<Type<'a>, i64>;

    /// A file as the multiset of its types.
    fn bag(file: &Recorded) -> Bag<'_> {
        let mut bag = Bag::new();
        file.typed().into_iter().for_each(|inferred| *bag.entry(Type::of(inferred)).or_default() += 1);
        bag
    }

    /// The newer file, from the older one and what differs.
    fn apply<'a>(base: &'a Recorded, changes: &[Change<'a>]) -> Bag<'a> {
        let mut bag = bag(base);
        for change in changes {
            if let Some(before) = change.before {
                let count = bag.entry(Type::of(before)).or_default();
                *count -= 1;
                assert!(*count >= 0, "what was removed was there");
            }
            change.after.into_iter().for_each(|after| *bag.entry(Type::of(after)).or_default() += 1);
        }
        bag.retain(|_, count| *count > 0);
        bag
    }

    fn files() -> impl Strategy<Value = Recorded> {
        let one = (0..4_usize, 0..2_usize, 0..3_usize);
        proptest::collection::vec(one, 0..60).prop_map(|types| {
            let inferred = |((name, kind, text), line): ((usize, usize, usize), u32)| {
                inferred(line, ["", "x", "y", "z"][name], KINDS[kind], ["int", "str", "x"][text])
            };
            recorded(types.into_iter().zip(0..).map(inferred).collect())
        })
    }

    proptest! {
        #[test]
        fn what_differs_takes_one_file_to_the_other(before in files(), after in files()) {
            let changes = diff(Some(&before), Some(&after));
            prop_assert!(apply(&before, &changes) == bag(&after));
            // Nothing is told as gone that is still there.
            let (old, new) = (bag(&before), bag(&after));
            let fewer: i64 = old.iter().map(|(key, count)| (count - new.get(key).unwrap_or(&0)).max(0)).sum();
            let more: i64 = new.iter().map(|(key, count)| (count - old.get(key).unwrap_or(&0)).max(0)).sum();
            let told = |of: fn(&Change<'_>) -> bool| i64::try_from(changes.iter().filter(|change| of(change)).count());
            prop_assert_eq!(told(|change| change.before.is_some()).unwrap(), fewer);
            prop_assert_eq!(told(|change| change.after.is_some()).unwrap(), more);
            for change in &changes {
                if let (Some(before), Some(after)) = (change.before, change.after) {
                    prop_assert!(before.name == after.name && Type::of(before) != Type::of(after));
                }
            }
        }

        #[test]
        fn a_copy_at_other_places_is_no_change(file in files(), lines in 1..9_u32) {
            let mut moved = file.clone();
            if let Recorded::Types(file) = &mut moved {
                for inferred in &mut file.types {
                    inferred.location.line += lines;
                }
            }
            prop_assert_eq!(diff(Some(&file), Some(&moved)), []);
        }
    }
}
