//! Texts of every shape: columns in each unit, line ends, byte order marks, stubs, broken and empty files.

use pyrightd::proto::{ExportOptions, FileExport, FileLocations, Outcome, Position, PositionEncoding, Selector};

use crate::harness::{Project, Server, at, select, type_of};

const ENCODINGS: [PositionEncoding; 3] = [PositionEncoding::Utf8, PositionEncoding::Utf16, PositionEncoding::Utf32];

/// Names behind accents, wide characters, characters beyond the basic plane, and tabs.
const WIDE: &str = "\
größe = 'é漢😀'; länge = größe  # 😀
if größe:
\tname = '\t😀'; 名前 = name
\té = ('漢',\t'😀', 名前)
";

/// A name, its line and column, and its type.
type Expected = (&'static str, u32, u32, &'static str);

async fn export(server: &Server, project: &Project, file: FileLocations, encoding: PositionEncoding) -> FileExport {
    let options = ExportOptions { position_encoding: encoding.into(), ..ExportOptions::default() };
    server.file_with(&project.root(), file, options).await.unwrap()
}

fn units(text: &str, encoding: PositionEncoding) -> u32 {
    let count = match encoding {
        PositionEncoding::Utf8 => text.len(),
        PositionEncoding::Utf32 => text.chars().count(),
        _ => text.encode_utf16().count(),
    };
    count as u32
}

/// Where each of these names stands, the first from the start, each other from behind the one before it.
fn places(names: &[&str], encoding: PositionEncoding) -> Vec<(u32, u32)> {
    let mut from = 0;
    let place = |name: &&str| {
        let offset = from + WIDE[from..].find(name).unwrap();
        from = offset + name.len();
        let line = WIDE[..offset].rsplit('\n').next().unwrap();
        (WIDE[..offset].matches('\n').count() as u32, units(line, encoding))
    };
    names.iter().map(place).collect()
}

#[tokio::test]
async fn columns_count_in_the_unit_asked_for() {
    let project = Project::new(&[("wide.py", WIDE)]);
    let server = Server::start(&[&project.root()]);
    let names = ["größe", "länge", "größe", "größe", "name", "名前", "name", "é", "名前"];
    for encoding in ENCODINGS {
        let places = places(&names, encoding);
        let selected = export(&server, &project, select("wide.py", Selector::Names), encoding).await;
        let asked = export(&server, &project, at("wide.py", &places), encoding).await;
        assert_eq!(selected.types, asked.types, "{encoding:?}");
        assert_eq!(asked.types.len(), names.len());
        for ((inferred, name), (line, character)) in asked.types.iter().zip(names).zip(places) {
            assert_eq!((inferred.outcome(), inferred.name.as_str()), (Outcome::Typed, name), "{encoding:?}");
            let range = inferred.range.unwrap();
            assert_eq!(range.start, Some(Position { line, character }), "{encoding:?} {name}");
            let end = Position { line, character: character + units(name, encoding) };
            assert_eq!(range.end, Some(end), "{encoding:?} {name}");
        }
        assert!(type_of(&asked, "é").starts_with("tuple["));
    }
}

#[tokio::test]
async fn columns_without_a_unit_count_utf_16() {
    let project = Project::new(&[("wide.py", WIDE)]);
    let server = Server::start(&[&project.root()]);
    let [unspecified, utf16] = [PositionEncoding::Unspecified, PositionEncoding::Utf16];
    let names = || select("wide.py", Selector::Names);
    let (unspecified, utf16) =
        (export(&server, &project, names(), unspecified).await, export(&server, &project, names(), utf16).await);
    assert_eq!(unspecified.types, utf16.types);
}

#[tokio::test]
async fn a_column_inside_a_character_is_no_place() {
    let project = Project::new(&[("a.py", "'é😀'; x = 1\n")]);
    let server = Server::start(&[&project.root()]);
    for (encoding, inside, name) in [
        (PositionEncoding::Utf8, &[2, 4, 5, 6][..], 10),
        (PositionEncoding::Utf16, &[3], 7),
        (PositionEncoding::Utf32, &[], 6),
    ] {
        let columns: Vec<_> = (0..=name).map(|column| (0, column)).collect();
        let file = export(&server, &project, at("a.py", &columns), encoding).await;
        for (inferred, (_, column)) in file.types.iter().zip(columns) {
            let is_inside = inferred.outcome() == Outcome::InvalidLocation;
            assert_eq!(is_inside, inside.contains(&column), "{encoding:?} {column}");
        }
        assert_eq!(file.types.last().unwrap().name, "x", "{encoding:?}");
    }
}

#[tokio::test]
async fn every_kind_of_text_is_read_as_python_reads_it() {
    let texts: [(&str, &[u8], &[Expected]); 9] = [
        ("crlf.py", b"one = 1.5\r\ntwo = one\r\n", &[("one", 0, 0, "float"), ("two", 1, 0, "float")]),
        ("cr.py", b"one = 1.5\rtwo = one\r", &[("one", 0, 0, "float"), ("two", 1, 0, "float")]),
        ("mixed.py", b"one = 1.5\r\ntwo = 2.5\rsix = 6\nten = 0.5", &[("two", 1, 0, "float"), ("ten", 3, 0, "float")]),
        ("mark.py", b"\xef\xbb\xbfone = 1.5\ntwo = one\n", &[("one", 0, 0, "float"), ("two", 1, 0, "float")]),
        ("feed.py", b"\x0cone = 1.5\n\x0c\ntwo = one\n", &[("one", 0, 1, "float"), ("two", 2, 0, "float")]),
        (
            "stub.pyi",
            b"one: float\ndef two(x: str = ...) -> bytes: ...\n",
            &[("one", 0, 0, "float"), ("two", 1, 4, "(x: str = ...) -> bytes")],
        ),
        ("end.py", b"one = 1.5\ntwo = one", &[("one", 0, 0, "float"), ("two", 1, 0, "float")]),
        ("broken.py", b"one = 1.5\ndef f(:\n    x = (1\n\n\nclass C(\ntwo = one\n", &[("one", 0, 0, "float")]),
        (
            "nested.py",
            b"match [1.5]:\n    case [one, *two]:\n        pass\n",
            &[("one", 1, 10, "float"), ("two", 1, 16, "list[float]")],
        ),
    ];
    let project = Project::new(&[]);
    for (path, bytes, _) in texts {
        project.write(path, bytes);
    }
    let server = Server::start(&[&project.root()]);
    for (path, _, expected) in texts {
        let file = export(&server, &project, select(path, Selector::Names), PositionEncoding::Utf16).await;
        for &(name, line, character, type_text) in expected {
            let inferred = crate::harness::named(&file, name);
            assert_eq!(inferred.location, Some(Position { line, character }), "{path} {name}");
            assert_eq!(inferred.range.unwrap().start, inferred.location, "{path} {name}");
            assert_eq!(inferred.r#type, type_text, "{path} {name}");
            // The same where the place is named.
            let asked = export(&server, &project, at(path, &[(line, character)]), PositionEncoding::Utf16).await;
            assert_eq!(&asked.types[0], inferred, "{path}");
        }
        let failed = file.types.iter().find(|inferred| inferred.outcome() == Outcome::Failed);
        assert_eq!(failed, None, "{path}");
    }
}

#[tokio::test]
async fn an_empty_text_has_one_place_and_no_names() {
    let project = Project::new(&[("empty.py", ""), ("mark.py", "\u{feff}")]);
    let server = Server::start(&[&project.root()]);
    for path in ["empty.py", "mark.py"] {
        for selector in [Selector::Names, Selector::Declarations] {
            let file = export(&server, &project, select(path, selector), PositionEncoding::Utf8).await;
            assert_eq!((file.types.len(), file.sha256.len()), (0, 64), "{path}");
        }
        let places = at(path, &[(0, 0), (0, 1), (1, 0)]);
        let file = export(&server, &project, places, PositionEncoding::Utf8).await;
        let outcomes: Vec<_> = file.types.iter().map(|inferred| inferred.outcome()).collect();
        assert_eq!(outcomes, [Outcome::NoType, Outcome::InvalidLocation, Outcome::InvalidLocation], "{path}");
    }
}
