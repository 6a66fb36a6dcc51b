//! Reads the engine's hover: turns its Markdown into a kind, a one-line type, and documentation.
//!
//! Pure text work. Asking the engine, and finding which source text was hovered, is left to others.

use crate::model::{Symbol, SymbolKind};

const FENCE: &str = "```python\n";
const FENCE_END: &str = "\n```";

/// How many UTF-16 units of a string the engine prints in a parameter's default value.
const DEFAULT_STRING_UNITS: usize = 32;

/// What the engine's hover says of a name; `None` where it shows no code, only documentation.
///
/// `name` is the hovered source text: an identifier, or a string literal where that is a key.
/// Takes time linear in the Markdown's length.
#[must_use]
pub fn infer(markdown: &str, name: &str) -> Option<Symbol> {
    let (code, mut rest) = split_code(markdown.strip_prefix(FENCE)?);
    let (kind, type_text) = describe(&code.lines, name);
    let mut hover = code.text.to_owned();
    // Several declarations stand one below the other; several keys have a rule in between.
    while let Some(next) = rest.strip_prefix(FENCE).or_else(|| rest.strip_prefix("\n\n---\n")?.strip_prefix(FENCE)) {
        let (code, after) = split_code(next);
        hover.push('\n');
        hover.push_str(code.text);
        rest = after;
    }
    let documentation = rest.strip_prefix("---\n").unwrap_or(rest).trim().to_owned();
    Some(Symbol { kind, type_text, hover, documentation })
}

/// The code of one fence, and its logical lines with each joined into one physical line.
struct Code<'a> {
    text: &'a str,
    lines: Vec<String>,
}

/// Splits what follows a fence's opening into its code and what comes after its end.
fn split_code(text: &str) -> (Code<'_>, &str) {
    let (end, lines) = Reader::new(text).read().unwrap_or_else(|| {
        let end = text.find(FENCE_END).unwrap_or(text.len());
        let joined = text[..end].split_whitespace().collect::<Vec<_>>().join(" ");
        (end, vec![joined])
    });
    let after = &text[end..];
    let after = after.strip_prefix(FENCE_END).unwrap_or(after);
    (Code { text: &text[..end], lines }, after.strip_prefix('\n').unwrap_or(after))
}

/// The kind and the type that a fence's logical lines name.
fn describe(lines: &[String], name: &str) -> (SymbolKind, String) {
    let (first, more) = lines.split_first().map_or(("", lines), |(first, more)| (first.as_str(), more));
    let (label, first) = split_label(first);
    if first.is_empty() {
        return (kind_of(label), overloaded(more));
    }
    if label.is_empty()
        && let Some((class, _)) = first.strip_prefix("class ").and_then(|class| class.split_once('('))
    {
        return (SymbolKind::Class, format!("type[{class}]"));
    }
    let type_text = match label {
        "class" => format!("type[{first}]"),
        "module" => format!("Module(\"{first}\")"),
        "type" => format!("type[{}]", first.split_once(" = ").map_or(first, |(_, target)| target)),
        "type variable" if !first.contains(": ") => format!("type[{first}]"),
        "type parameter" => without_variance(declared(first)).to_owned(),
        "key" => keyed(first, name).to_owned(),
        _ => declared(first).to_owned(),
    };
    // So the engine labels a name of which it knows no declaration.
    let unknown = label == "function" && type_text == "Unknown" && !first.contains("def ");
    (if unknown { SymbolKind::Unspecified } else { kind_of(label) }, type_text)
}

/// Splits `(label) rest`; the label is empty where the text bears none.
fn split_label(line: &str) -> (&str, &str) {
    line.strip_prefix('(')
        .and_then(|line| line.split_once(')'))
        .filter(|(label, _)| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b' '))
        .map_or(("", line), |(label, rest)| (label, rest.trim_start()))
}

fn kind_of(label: &str) -> SymbolKind {
    match label {
        // The engine's own names, such as `__file__`, bear no label.
        "variable" | "key" | "" => SymbolKind::Variable,
        "constant" => SymbolKind::Constant,
        "parameter" => SymbolKind::Parameter,
        "function" => SymbolKind::Function,
        "method" => SymbolKind::Method,
        "property" => SymbolKind::Property,
        "class" => SymbolKind::Class,
        "module" => SymbolKind::Module,
        "type parameter" | "type variable" | "param spec" => SymbolKind::TypeParameter,
        "type" => SymbolKind::TypeAlias,
        _ => SymbolKind::Unspecified,
    }
}

/// The type of all overloads, each a line such as `def f(x: int) -> int: ...`.
fn overloaded(lines: &[String]) -> String {
    let overloads: Vec<_> = lines
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| declared(line.strip_suffix(": ...").unwrap_or(line)))
        .collect();
    match overloads[..] {
        [only] => only.to_owned(),
        _ => format!("Overload[{}]", overloads.join(", ")),
    }
}

/// The type in `name: T`, `def name(…) -> R`, or `async def name(…) -> R`.
fn declared(line: &str) -> &str {
    let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ");
    if let Some(open) = function.and_then(|function| Some(&function[function.find('(')?..])) {
        return open;
    }
    line.split_once(": ").map_or(line, |(_, declared)| declared)
}

/// The type in `key: T`, where the key may hold anything and `literal` is how the source spells it.
fn keyed<'a>(line: &'a str, literal: &str) -> &'a str {
    let key = literal.trim_start_matches(|c: char| c.is_ascii_alphabetic()).trim_matches(['"', '\'']);
    line.strip_prefix(key).and_then(|rest| rest.strip_prefix(": ")).unwrap_or_else(|| declared(line))
}

fn without_variance(type_text: &str) -> &str {
    ["(invariant)", "(covariant)", "(contravariant)"]
        .iter()
        .find_map(|variance| type_text.strip_suffix(variance))
        .map_or(type_text, str::trim_end)
}

/// Walks over printed Python, aware of its brackets and strings.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// How many brackets are open.
    depth: usize,
    /// The depth of the parameter whose default value is being read.
    default: Option<usize>,
    line: String,
    lines: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, default: None, line: String::new(), lines: Vec::new() }
    }

    /// Reads up to the fence's end: its offset, and the logical lines before it.
    ///
    /// `None` where no end is found outside a string.
    fn read(mut self) -> Option<(usize, Vec<String>)> {
        loop {
            let rest = &self.text[self.at..];
            let next = rest.chars().next()?;
            match next {
                '\n' if ends_fence(rest) => {
                    self.lines.push(self.line);
                    return Some((self.at, self.lines));
                }
                '\n' => {
                    self.line_break();
                    continue;
                }
                '"' | '\'' => {
                    self.string(next)?;
                    continue;
                }
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.default = self.default.filter(|&depth| depth <= self.depth);
                }
                ',' => self.default = self.default.filter(|&depth| depth != self.depth),
                '=' => self.default = self.default.or(Some(self.depth)),
                _ => {}
            }
            self.line.push(next);
            self.at += next.len_utf8();
        }
    }

    /// Ends the logical line, or joins it with what follows inside brackets.
    fn line_break(&mut self) {
        self.at += 1;
        if self.depth == 0 {
            self.default = None;
            self.lines.push(std::mem::take(&mut self.line));
            return;
        }
        let rest = &self.text[self.at..];
        let next = rest.trim_start_matches([' ', '\r', '\t']);
        self.at += rest.len() - next.len();
        let touches = next.starts_with([')', ']', '}', '\n']) || self.line.ends_with(['(', '[', '{', ' ']);
        if !touches {
            self.line.push(' ');
        }
    }

    /// Takes the string literal that starts here over, with its line breaks escaped.
    ///
    /// `None` where three quotes open it and none close it.
    fn string(&mut self, quote: char) -> Option<()> {
        let rest = &self.text[self.at..];
        let triple = if quote == '"' { "\"\"\"" } else { "'''" };
        let quotes = if rest.starts_with(triple) { triple } else { &triple[..1] };
        let body = &rest[quotes.len()..];
        // The engine cuts plain strings, not formatted ones.
        let is_cut = self.default.is_some() && !self.line.ends_with(['f', 't']);
        let end = string_end(body, quotes, is_cut.then_some(DEFAULT_STRING_UNITS));
        let taken = match end {
            Some(end) => &rest[..quotes.len() + end + quotes.len()],
            None if quotes == triple => return None,
            None => rest.split_once('\n').map_or(rest, |(line, _)| line),
        };
        // A backslash before a line break joins lines.
        for (index, part) in taken.split("\\\n").flat_map(|part| part.split('\n').enumerate()) {
            if index > 0 {
                self.line.push_str("\\n");
            }
            self.line.push_str(part);
        }
        self.at += taken.len();
        Some(())
    }
}

/// Whether a line break is followed by a line of nothing but three backticks.
fn ends_fence(text: &str) -> bool {
    text.strip_prefix(FENCE_END).is_some_and(|after| after.is_empty() || after.starts_with('\n'))
}

/// Where a string's closing quotes are; `None` where the text, or the line of a short string, ends first.
///
/// A body cut at `limit` UTF-16 units may end in half an escape, so there even an escaped quote closes it.
fn string_end(body: &str, quotes: &str, limit: Option<usize>) -> Option<usize> {
    let mut units = 0;
    let mut escaped = false;
    for (offset, next) in body.char_indices() {
        if (!escaped || limit == Some(units)) && body[offset..].starts_with(quotes) {
            return Some(offset);
        }
        if next == '\n' && !escaped && quotes.len() == 1 {
            return None;
        }
        escaped = next == '\\' && !escaped;
        units += next.len_utf16();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn symbol(code: &str) -> Symbol {
        let symbol = infer(&format!("```python\n{code}\n```"), "name").expect("a fence");
        assert_eq!(symbol.hover, code);
        symbol
    }

    #[track_caller]
    fn check(code: &str, kind: SymbolKind, type_text: &str) {
        let symbol = symbol(code);
        assert_eq!((symbol.kind, symbol.type_text.as_str()), (kind, type_text));
    }

    #[test]
    fn labels_name_the_kind() {
        check("(variable) x: dict[str, int] | None", SymbolKind::Variable, "dict[str, int] | None");
        check("(constant) LIMIT: Literal[10]", SymbolKind::Constant, "Literal[10]");
        check(
            "(parameter) self: Self@Box[V@Box, Ts@Box, Q@Box]",
            SymbolKind::Parameter,
            "Self@Box[V@Box, Ts@Box, Q@Box]",
        );
        check("(property) size: int", SymbolKind::Property, "int");
        check("(import) gone: Unknown", SymbolKind::Unspecified, "Unknown");
        check("(function) attribute: Unknown", SymbolKind::Unspecified, "Unknown");
        check("(function) command: Command", SymbolKind::Function, "Command");
        check("__file__: str", SymbolKind::Variable, "str");
        check("(unheard) x: int", SymbolKind::Unspecified, "int");
    }

    #[test]
    fn classes_modules_and_type_names_are_spelled_as_types() {
        check("(class) Foo", SymbolKind::Class, "type[Foo]");
        check("(module) os", SymbolKind::Module, "Module(\"os\")");
        check("(type) Alias = int | str", SymbolKind::TypeAlias, "type[int | str]");
        check("(type variable) T", SymbolKind::TypeParameter, "type[T]");
        check("(type variable) T: type[T]", SymbolKind::TypeParameter, "type[T]");
        check("(param spec) P", SymbolKind::TypeParameter, "P");
        check("(type parameter) V: type[V@Box] (invariant)", SymbolKind::TypeParameter, "type[V@Box]");
        check("(type parameter) Q: Q@Box", SymbolKind::TypeParameter, "Q@Box");
    }

    #[test]
    fn signatures_take_one_line() {
        check("(function) def f() -> None", SymbolKind::Function, "() -> None");
        check(
            "(method) def f(\n    a: int,\n    *,\n    b: str = \"q\"\n) -> (int | None)",
            SymbolKind::Method,
            "(a: int, *, b: str = \"q\") -> (int | None)",
        );
        check(
            "(function) async def f(\n    u: str,\n    n: int = 3\n) -> list[str]",
            SymbolKind::Function,
            "(u: str, n: int = 3) -> list[str]",
        );
        check(
            "(variable) def cb(\n    int,\n    **P@f\n) -> ((int) -> str)",
            SymbolKind::Variable,
            "(int, **P@f) -> ((int) -> str)",
        );
        check("(property) cb: (\n    int,\n    str\n) -> None", SymbolKind::Property, "(int, str) -> None");
        check(
            "(function) f: type[(\n    a: int,\n    b: int\n) -> None]",
            SymbolKind::Function,
            "type[(a: int, b: int) -> None]",
        );
    }

    #[test]
    fn overloads_are_listed() {
        check(
            "(function)\ndef pick(x: int) -> int: ...\n\ndef pick(\n    x: str,\n    end: str = \"def f(x: int): ...\"\n) -> str: ...",
            SymbolKind::Function,
            "Overload[(x: int) -> int, (x: str, end: str = \"def f(x: int): ...\") -> str]",
        );
        check("(variable)\ndef f(x: int) -> int: ...", SymbolKind::Variable, "(x: int) -> int");
    }

    #[test]
    fn constructors_are_classes() {
        check("class Foo()", SymbolKind::Class, "type[Foo]");
        check("class Foo(\n    a: int,\n    b: str = \"\"\n)", SymbolKind::Class, "type[Foo]");
        check("class Foo(a: int): ...\n\nclass Foo(\n    a: str,\n    /\n): ...\n\n", SymbolKind::Class, "type[Foo]");
    }

    #[test]
    fn strings_are_not_code() {
        check(
            "(function) def f(\n    a: str = \"it's -> (\",\n    b: Unknown = lambda q, r = 1: (q, r),\n    c: Unknown = { \"k\": [1, 2] },\n    d: str = \"\"\"line\ntwo ) -> ```\n```\nx\"\"\",\n    f: str = f\"x{A}\",\n    g: bytes = b\"\\x00\\n'\",\n    h: str = r'\\'',\n    i: str = \"one\\\ntwo\"\n) -> (((int) -> str) | None)",
            SymbolKind::Function,
            "(a: str = \"it's -> (\", b: Unknown = lambda q, r = 1: (q, r), c: Unknown = { \"k\": [1, 2] }, d: str = \"\"\"line\\ntwo ) -> ```\\n```\\nx\"\"\", f: str = f\"x{A}\", g: bytes = b\"\\x00\\n'\", h: str = r'\\'', i: str = \"onetwo\") -> (((int) -> str) | None)",
        );
        check(
            "(variable) x: Literal['it\\'s (', ']\\n…', b\"\\\"\"]",
            SymbolKind::Variable,
            "Literal['it\\'s (', ']\\n…', b\"\\\"\"]",
        );
    }

    #[test]
    fn a_default_cut_inside_an_escape_still_ends() {
        let cut = format!("'{}\\'", "a".repeat(31));
        check(
            &format!(
                "(function)\ndef f(\n    e: str = {cut},\n    f: int = 1\n) -> str: ...\ndef f(x: int) -> int: ..."
            ),
            SymbolKind::Function,
            &format!("Overload[(e: str = {cut}, f: int = 1) -> str, (x: int) -> int]"),
        );
        // The same text as a type is no default: there the quote is escaped.
        let literal = format!("Literal['{}\\'(']", "a".repeat(31));
        check(&format!("(variable) x: {literal}"), SymbolKind::Variable, &literal);
    }

    #[test]
    fn documentation_follows_the_code() {
        let markdown = "```python\n(function) def f() -> None\n```\n---\nPick.\n\n```python\nf()\n```";
        let symbol = infer(markdown, "f").expect("a fence");
        assert_eq!(symbol.hover, "(function) def f() -> None");
        assert_eq!(symbol.documentation, "Pick.\n\n```python\nf()\n```");
        let symbol = infer("```python\n(parameter) a: str\n```\na: The first.", "a").expect("a fence");
        assert_eq!(symbol.documentation, "a: The first.");
        let symbol =
            infer("```python\n(function) def f() -> None\n```\n---\n```python\nf()\n```", "f").expect("a fence");
        assert_eq!(symbol.documentation, "```python\nf()\n```");
    }

    #[test]
    fn documentation_alone_is_no_type() {
        assert_eq!(infer("Returns: a thing.", "->"), None);
        assert_eq!(infer("", ""), None);
    }

    #[test]
    fn several_fences_are_one_hover() {
        let markdown = "```python\n(variable) a: int\n```\n```python\n(variable) a: str\n```\n---\nDoc.";
        let symbol = infer(markdown, "a").expect("a fence");
        assert_eq!(symbol.type_text, "int");
        assert_eq!(symbol.hover, "(variable) a: int\n(variable) a: str");
        assert_eq!(symbol.documentation, "Doc.");
        let markdown = "```python\n(key) a: int\n```\n\n\n---\n```python\n(key) a: str\n```\n---\nDoc.";
        let symbol = infer(markdown, "'a'").expect("a fence");
        assert_eq!(symbol.hover, "(key) a: int\n(key) a: str");
        assert_eq!((symbol.kind, symbol.type_text.as_str()), (SymbolKind::Variable, "int"));
        assert_eq!(symbol.documentation, "Doc.");
    }

    #[test]
    fn keys_may_hold_anything() {
        for (literal, key) in [("'name'", "name"), ("b'a: b'", "a: b"), ("\"it's (\"", "it's (")] {
            let symbol = infer(&format!("```python\n(key) {key}: list[int]\n```"), literal).expect("a fence");
            assert_eq!(symbol.type_text, "list[int]", "{key}");
        }
    }

    #[test]
    fn broken_code_is_kept_on_one_line() {
        let symbol = infer("```python\n(variable) x: \"\"\"a\nb\n```\n---\nDoc", "x").expect("a fence");
        assert_eq!(symbol.type_text, "\"\"\"a b");
        assert_eq!(symbol.documentation, "Doc");
        assert_eq!(infer("```python\n(variable) x: int", "x").expect("a fence").type_text, "int");
        assert_eq!(infer("```python\n\n```", "").expect("a fence").hover, "");
    }

    #[test]
    fn long_code_takes_linear_time() {
        for unit in ["\"", "'''", "\\\"\"\"", "('", "= \"\\\n", "(\n", "{\"a\",\n", "f'{x['(']}'"] {
            let markdown = format!("```python\n(variable) x: {}\n```", unit.repeat(200_000));
            assert!(infer(&markdown, "x").is_some());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "(variable) ", "(key) ", "class ", "def ", "f(", ")", "[", "]", " -> ", ": ", "...", "=", ",", "\n", "    ",
                    "\"", "'", "\"\"\"", "\\", "```", "```python\n", "---\n", "é", "😀", "x",
                ]),
                0..60,
            ),
        ) {
            let markdown = format!("```python\n{}", parts.concat());
            let symbol = infer(&markdown, "'x'");
            prop_assert!(symbol.is_some_and(|symbol| !symbol.type_text.contains('\n')));
        }
    }
}
