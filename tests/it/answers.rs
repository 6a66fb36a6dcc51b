//! What is answered of a location: type, kind, name, details, and the order of it all.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::{
    Definition, Detail, ExportFilesRequest, ExportOptions, FileExport, Outcome, PositionEncoding, Selector, SymbolKind,
};

use crate::harness::{Project, Server, at, engine_cache, first, named, package, place_of, select, text, type_of};

/// Each kind of symbol and each form of type, one a line.
const FORMS: &str = "\
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple, ParamSpec, Self, TypeAlias, TypedDict, TypeVar, overload
from missing import nowhere

LIMIT = 10
RATE: Final = 0.5
maybe: int | None = max([1], default=None)
mapping: dict[str, list[int]] = {}
pair = (int(), str())
numbers = [n * 2 for n in range(3)]
anything: Any = 0
square = lambda x: x * 2
T = TypeVar('T', bound=int)
P = ParamSpec('P')
Name = str
Pair: TypeAlias = tuple[int, str]
type Tree[V] = dict[str, V]

class Colour(Enum):
    RED = 1

@dataclass
class Point:
    coordinate: float

    @property
    def norm(self) -> float:
        return abs(self.coordinate)

    @cached_property
    def cached(self) -> int:
        return 1

    @classmethod
    def origin(cls) -> Self:
        return cls(0.0)

    @staticmethod
    def parse(written: str) -> 'Point':
        return Point(float(written))

    def moved(self, by: float = 2.5, *more: int, loud: bool = False, **rest: str) -> 'Point':
        return self

class Box[Item]:
    def __init__(self, item: Item):
        self.held = item

class Row(TypedDict):
    key: int

class Both(NamedTuple):
    left: int

@overload
def pick(which: int) -> int: ...
@overload
def pick(which: str) -> str: ...
def pick(which): return which

def later(work: Callable[P, T]) -> Callable[P, list[T]]: raise NotImplementedError
async def fetch(url: str) -> bytes: return url.encode()
def counted() -> Iterator[int]: yield 1
def guessed(flag: bool): return 1 if flag else 'one'

size = Point(1.0).norm
boxed = Box('x')
chosen = pick('a')
picker = pick
red = Colour.RED
pending = fetch('a')
environment = os.environ
maker = Point
lost = nowhere.thing
undefined
";

#[tokio::test]
async fn a_files_names_get_their_types() {
    let project = Project::new(&[
        ("shop/__init__.py", ""),
        (
            "shop/cart.py",
            "from shop.item import Item\n\ndef total(items: list[Item]):\n    return sum(item.price for item in items)\n",
        ),
        ("shop/item.py", "class Item:\n    def __init__(self, price: float):\n        self.price = price\n"),
    ]);
    let server = Server::start(&[&project.root()]);
    let file = server.file(&project.root(), select("shop/cart.py", Selector::Names)).await.unwrap();
    assert_eq!(type_of(&file, "Item"), "type[Item]");
    assert_eq!(type_of(&file, "total"), "(items: list[Item]) -> (float | Literal[0])");
    assert_eq!(type_of(&file, "price"), "float");
    assert_eq!(named(&file, "items").kind(), SymbolKind::Parameter);
    assert!(file.types.iter().all(|inferred| inferred.outcome() == Outcome::Typed), "{file:#?}");
}

#[tokio::test]
async fn each_kind_of_symbol_and_form_of_type_is_told() {
    use SymbolKind::{
        Class, Constant, Function, Method, Module, Parameter, Property, TypeAlias, TypeParameter, Unspecified, Variable,
    };
    let project = Project::new(&[("forms.py", FORMS)]);
    let server = Server::start(&[&project.root()]);
    let file = server.file(&project.root(), select("forms.py", Selector::Names)).await.unwrap();
    for (name, kind, expected) in [
        ("os", Module, "Module(\"os\")"),
        ("Enum", Class, "type[Enum]"),
        ("LIMIT", Constant, "Literal[10]"),
        ("RATE", Constant, "float"),
        ("maybe", Variable, "int | None"),
        ("mapping", Variable, "dict[str, list[int]]"),
        ("pair", Variable, "tuple[int, str]"),
        ("numbers", Variable, "list[int]"),
        ("anything", Variable, "Any"),
        ("square", Variable, "(x: Unknown) -> Unknown"),
        ("Name", TypeAlias, "type[str]"),
        ("Pair", TypeAlias, "type[tuple[int, str]]"),
        ("Tree", TypeAlias, "type[dict[str, V@Tree]]"),
        ("V", TypeParameter, "type[V@Tree]"),
        ("Colour", Class, "type[Colour]"),
        ("Point", Class, "type[Point]"),
        ("coordinate", Variable, "float"),
        ("norm", Property, "(self: Self@Point) -> float"),
        ("self", Parameter, "Self@Point"),
        ("cached", Property, "(self: Self@Point) -> int"),
        ("origin", Method, "(cls: type[Self@Point]) -> Self@Point"),
        ("cls", Parameter, "type[Self@Point]"),
        ("parse", Method, "(written: str) -> Point"),
        ("moved", Method, "(self: Self@Point, by: float = 2.5, *more: int, loud: bool = False, **rest: str) -> Point"),
        ("more", Parameter, "tuple[int, ...]"),
        ("rest", Parameter, "dict[str, str]"),
        ("Item", TypeParameter, "type[Item@Box]"),
        ("__init__", Method, "(self: Self@Box[Item@Box], item: Item@Box) -> None"),
        ("held", Variable, "Item@Box"),
        ("key", Variable, "int"),
        ("later", Function, "(work: (**P@later) -> T@later) -> ((**P@later) -> list[T@later])"),
        ("fetch", Function, "(url: str) -> bytes"),
        ("encode", Method, "(encoding: str = \"utf-8\", errors: str = \"strict\") -> bytes"),
        ("counted", Function, "() -> Iterator[int]"),
        ("guessed", Function, "(flag: bool) -> Literal[1, 'one']"),
        ("size", Variable, "float"),
        ("boxed", Variable, "Box[str]"),
        ("chosen", Variable, "str"),
        ("picker", Variable, "Overload[(which: int) -> int, (which: str) -> str]"),
        ("red", Variable, "Literal[Colour.RED]"),
        ("pending", Variable, "CoroutineType[Any, Any, bytes]"),
        ("environment", Variable, "_Environ[str]"),
        ("lost", Variable, "Unknown"),
        ("undefined", Unspecified, "Unknown"),
    ] {
        let inferred = named(&file, name);
        assert_eq!((inferred.kind(), inferred.r#type.as_str()), (kind, expected), "{name}");
        assert_eq!(inferred.outcome(), Outcome::Typed, "{name}");
        let (range, start) = (inferred.range.unwrap(), inferred.location.unwrap());
        assert_eq!((range.start.unwrap(), range.end.unwrap().line), (start, start.line), "{name}");
        assert_eq!(range.end.unwrap().character, start.character + name.len() as u32, "{name}");
    }
}

#[tokio::test]
async fn places_with_nothing_to_type_and_places_outside_are_told_apart() {
    let source = "if True:\n    x = 1  # note\n\n";
    let project = Project::new(&[("a.py", source)]);
    let server = Server::start(&[&project.root()]);
    let asked = [
        ((0, 0), Outcome::NoType),
        ((1, 0), Outcome::NoType),
        ((1, 4), Outcome::Typed),
        ((1, 14), Outcome::NoType),
        ((1, 17), Outcome::NoType),
        ((1, 18), Outcome::InvalidLocation),
        ((2, 0), Outcome::NoType),
        ((3, 0), Outcome::NoType),
        ((3, 1), Outcome::InvalidLocation),
        ((4, 0), Outcome::InvalidLocation),
        ((u32::MAX, u32::MAX), Outcome::InvalidLocation),
    ];
    let file = server.file(&project.root(), at("a.py", &asked.map(|(place, _)| place))).await.unwrap();
    for (inferred, (place, outcome)) in file.types.iter().zip(asked) {
        assert_eq!(inferred.outcome(), outcome, "{place:?}");
        assert_eq!(inferred.range.is_some(), outcome == Outcome::Typed, "{place:?}");
        assert_eq!(inferred.r#type.is_empty(), outcome != Outcome::Typed, "{place:?}");
    }
    assert_eq!(file.types.len(), asked.len());
}

#[tokio::test]
async fn types_stand_in_the_order_asked_and_duplicates_are_answered_each() {
    let source = "one = 1\ntwo = 'two'\nthree = 3.0\n";
    let project = Project::new(&[("a.py", source)]);
    let server = Server::start(&[&project.root()]);
    let asked = at("a.py", &[(2, 0), (9, 9), (0, 0), (2, 0), (1, 1), (0, 2), (9, 9), (0, 0)]);
    let file = server.file(&project.root(), asked.clone()).await.unwrap();
    let locations: Vec<_> = file.types.iter().map(|inferred| inferred.location.unwrap()).collect();
    assert_eq!(locations, asked.locations);
    let types: Vec<_> = file.types.iter().map(|inferred| inferred.name.as_str()).collect();
    assert_eq!(types, ["three", "", "one", "three", "two", "one", "", "one"]);
}

#[tokio::test]
async fn details_are_told_on_request_alone() {
    let library = "def area(width: float) -> float:\n    \"\"\"The area.\"\"\"\n    return width\n";
    let source = "from library import area\nfound = area(2)\nlength = len('x')\n";
    let project = Project::new(&[("library.py", library), ("a.py", source)]);
    let server = Server::start(&[&project.root()]);
    let asked = || first("a.py", source, &["area(", "len("]);

    let plain = server.file(&project.root(), asked()).await.unwrap();
    for inferred in &plain.types {
        assert_eq!(inferred.outcome(), Outcome::Typed);
        assert_eq!((inferred.hover.as_str(), inferred.documentation.as_str()), ("", ""));
        assert_eq!(inferred.definitions, []);
    }

    let with = async |details: &[Detail]| {
        let details = details.iter().map(|&detail| detail.into()).collect();
        let options = ExportOptions { details, ..ExportOptions::default() };
        server.file_with(&project.root(), asked(), options).await.unwrap().types
    };
    let [area, len]: [_; 2] =
        with(&[Detail::Hover, Detail::Documentation, Detail::Definitions]).await.try_into().unwrap();
    assert_eq!(area.hover, "(function) def area(width: float) -> float");
    assert_eq!(area.documentation, "The area.");
    let definition = &area.definitions[..];
    assert!(matches!(definition, [Definition { path, .. }] if path == "library.py"), "{definition:?}");
    assert_eq!(definition[0].range.unwrap().start.map(|start| (start.line, start.character)), Some((0, 4)));
    assert_eq!(definition[0].range.unwrap().end.map(|end| (end.line, end.character)), Some((0, 8)));

    let builtins = len.definitions[0].path.as_str();
    assert!(builtins.starts_with(&text(&engine_cache())) && builtins.ends_with("/builtins.pyi"), "{builtins}");
    let declared = len.definitions[0].range.unwrap().start.unwrap();
    let builtins = std::fs::read_to_string(builtins).unwrap();
    assert_eq!(place_of(&builtins, "len("), (declared.line, declared.character));

    for (detail, expected) in [
        (Detail::Hover, (true, false, false)),
        (Detail::Documentation, (false, true, false)),
        (Detail::Definitions, (false, false, true)),
    ] {
        for inferred in with(&[detail, detail]).await.iter().take(1) {
            let told =
                (!inferred.hover.is_empty(), !inferred.documentation.is_empty(), !inferred.definitions.is_empty());
            assert_eq!(told, expected, "{detail:?} {inferred:?}");
        }
    }
}

#[tokio::test]
async fn definitions_in_other_files_are_in_the_callers_unit() {
    let library = "'漢😀'; thing = 1\n";
    let project = Project::new(&[("deep/library.py", library), ("a.py", "from deep.library import thing\n")]);
    let server = Server::start(&[&project.root()]);
    for (encoding, column) in [(PositionEncoding::Utf8, 11), (PositionEncoding::Utf16, 7), (PositionEncoding::Utf32, 6)]
    {
        let options = ExportOptions {
            position_encoding: encoding.into(),
            details: vec![Detail::Definitions.into()],
            max_in_flight: 0,
        };
        let file = server.file_with(&project.root(), at("a.py", &[(0, 25)]), options).await.unwrap();
        let [definition] = &file.types[0].definitions[..] else { panic!("{file:#?}") };
        assert_eq!(definition.path, "deep/library.py");
        assert_eq!(definition.range.unwrap().start.map(|start| start.character), Some(column), "{encoding:?}");
    }
}

#[tokio::test]
async fn every_name_of_a_package_is_answered() {
    let flask = package("flask");
    let server = Server::start(&[&flask]);
    // What Python's own tokenizer takes for a name, by file.
    let tokens = python_names(&flask);
    assert!(tokens.values().map(Vec::len).sum::<usize>() > 5000);
    let request = ExportFilesRequest {
        project_root: text(&flask),
        default_selector: Selector::Names.into(),
        ..ExportFilesRequest::default()
    };
    let mut messages = server.files(request).await.unwrap();
    let Some(Message::Summary(summary)) = messages.pop() else { panic!("the summary comes last") };
    let files = files_of(messages);

    let outcomes = || files.iter().flat_map(|file| &file.types).map(|inferred| inferred.outcome());
    let typed = outcomes().filter(|&outcome| outcome == Outcome::Typed).count() as u64;
    assert!(outcomes().all(|outcome| matches!(outcome, Outcome::Typed | Outcome::NoType)));
    assert_eq!((summary.files as usize, summary.failed_files), (files.len(), 0));
    assert_eq!((summary.locations as usize, summary.typed), (outcomes().count(), typed));
    assert!(typed * 100 > summary.locations * 97, "{summary:?}");

    assert_eq!(files.len(), tokens.len());
    for (file, (path, names)) in files.iter().zip(tokens) {
        assert_eq!(file.path, path);
        let answered: HashSet<_> = file
            .types
            .iter()
            .map(|inferred| inferred.location.unwrap())
            .map(|place| (place.line, place.character))
            .collect();
        for place in names {
            assert!(answered.contains(&place), "{path} {place:?}");
        }
    }
}

#[tokio::test]
async fn declarations_are_among_the_names() {
    let rich = package("rich");
    let server = Server::start(&[&rich]);
    let export = async |selector| server.file(&rich, select("rich/table.py", selector)).await.unwrap();
    let (names, declarations) = (export(Selector::Names).await, export(Selector::Declarations).await);
    for declared in &declarations.types {
        assert_eq!(declared.outcome(), Outcome::Typed, "{declared:?}");
        assert!(names.types.contains(declared), "{declared:?}");
    }
    let declared: Vec<_> = declarations.types.iter().map(|inferred| inferred.name.as_str()).collect();
    for name in ["Column", "Table", "add_column", "self", "header_style", "_index"] {
        assert!(declared.contains(&name), "{name}");
    }
    assert!(!declared.contains(&"isinstance") && !declared.contains(&"append"));
    assert!(declarations.types.len() * 2 < names.types.len());
}

fn files_of(messages: Vec<Message>) -> Vec<FileExport> {
    let file = |message| match message {
        Message::File(file) => Some(file),
        _ => None,
    };
    messages.into_iter().filter_map(file).collect()
}

/// Line and column of each name outside of strings, as Python itself sees it, by file.
fn python_names(root: &Path) -> BTreeMap<String, Vec<(u32, u32)>> {
    let program = "\
import json, keyword, pathlib, sys, tokenize
def names(path):
    with open(path, 'rb') as file:
        tokens = list(tokenize.tokenize(file.readline))
    names = [token for token in tokens if token.type == tokenize.NAME and not keyword.iskeyword(token.string)]
    return [(name.start[0] - 1, name.start[1]) for name in names]
root = pathlib.Path(sys.argv[1])
print(json.dumps({str(path.relative_to(root)): names(path) for path in root.rglob('*.py')}))
";
    let output = Command::new("python3").args(["-c", program]).arg(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
