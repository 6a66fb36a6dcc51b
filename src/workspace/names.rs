//! Finds the names of a Python text: every identifier, or only those that declare something.
//!
//! Pure syntax, also of broken texts. Which files are read, and what the names mean, is left to others.

use std::borrow::Cow;
use std::ops::Range;

use tree_sitter::{Node, Parser, TreeCursor};

use crate::model::Selector;

/// What Python 3 never takes for a name, though the grammar may, in broken texts or as Python 2.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// The byte ranges of the selected names, in source order and without duplicates.
///
/// Of a text that does not parse as a whole, the names of the parts that do. A text beyond the
/// parser's limit of 4 GiB has none.
#[must_use]
pub fn select(text: &str, selector: Selector) -> Vec<Range<usize>> {
    let mut parser = Parser::new();
    let is_ready = parser.set_language(&tree_sitter_python::LANGUAGE.into()).is_ok();
    if !is_ready || u32::try_from(text.len()).is_err() {
        return Vec::new();
    }
    let Some(tree) = parser.parse(with_line_feeds(text), None) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    walk(&mut tree.walk(), |node, role| {
        let range = node.byte_range();
        let is_picked = selector == Selector::Names
            || match role {
                Role::Target => true,
                // The grammar knows no defaults of type parameters: it takes them for entries.
                Role::TypeParameters => !follows_equals(text, range.start),
                Role::Use | Role::Pattern => false,
            };
        if is_picked && text.get(range.clone()).is_some_and(|name| !name.is_empty() && !KEYWORDS.contains(&name)) {
            names.push(range);
        }
    });
    names
}

fn follows_equals(text: &str, offset: usize) -> bool {
    let before = text.get(..offset).unwrap_or_default();
    before.trim_end_matches(|c: char| c == '*' || c.is_whitespace()).ends_with('=')
}

/// The text with each lone carriage return, which ends no line for the parser, made a line feed.
fn with_line_feeds(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    let is_lone = |&index: &usize| bytes[index] == b'\r' && bytes.get(index + 1) != Some(&b'\n');
    let mut lone = (0..bytes.len()).filter(is_lone).peekable();
    if lone.peek().is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut copy = bytes.to_vec();
    for index in lone {
        copy[index] = b'\n';
    }
    Cow::Owned(copy)
}

/// What a part of the tree does to the names in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It uses them.
    Use,
    /// It declares them.
    Target,
    /// It is a pattern of a `case`: a lone name is declared, a dotted one used.
    Pattern,
    /// It is a list such as `[T: Bound]`: each entry's name is declared.
    TypeParameters,
}

/// Visits each name in source order. A loop, since recursion would exhaust the stack on deep texts.
fn walk(cursor: &mut TreeCursor<'_>, mut visit: impl FnMut(Node<'_>, Role)) {
    let mut ancestors: Vec<(&str, Role)> = Vec::new();
    let mut is_first = true;
    loop {
        let node = cursor.node();
        let (parent, inherited) = ancestors.last().copied().unwrap_or(("", Role::Use));
        let role = match inherited {
            _ if declares(parent, cursor.field_name(), node.kind()) => Role::Target,
            Role::Use => entry_role(parent, cursor.field_name(), node.kind()),
            Role::Target => target_role(parent, cursor.field_name(), node.kind()),
            Role::Pattern => pattern_role(parent, cursor.field_name(), node),
            Role::TypeParameters => type_parameters_role(parent, node.kind(), is_first),
        };
        if is_name(node) {
            visit(node, role);
        }
        is_first = cursor.goto_first_child();
        if is_first {
            ancestors.push((node.kind(), role));
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
            ancestors.pop();
        }
    }
}

fn is_name(node: Node<'_>) -> bool {
    match node.kind() {
        // The last four are keywords of the grammar only.
        "identifier" | "print" | "exec" | "__future__" | "_" => true,
        // The grammar takes `type(x).y = z` for an alias, though that names none.
        "type" => !node.is_named() && node.next_sibling().is_some_and(|alias| !names_alias(alias)),
        _ => false,
    }
}

/// Whether what follows `type` is a name, maybe with type parameters.
fn names_alias(node: Node<'_>) -> bool {
    node.child(0).is_some_and(|name| matches!(name.kind(), "identifier" | "generic_type"))
}

/// Whether a child of some kind of node declares its names, wherever that node stands.
fn declares(parent: &str, field: Option<&str>, kind: &str) -> bool {
    match parent {
        "function_definition"
        | "class_definition"
        | "named_expression"
        | "default_parameter"
        | "typed_default_parameter" => field == Some("name"),
        "assignment" | "augmented_assignment" | "for_statement" | "for_in_clause" | "type_alias_statement" => {
            field == Some("left")
        }
        "as_pattern" | "except_clause" => field == Some("alias"),
        "parameters" | "lambda_parameters" => true,
        "typed_parameter" => field.is_none(),
        "splat_pattern" => kind == "identifier",
        _ => false,
    }
}

/// Where a pattern or a list of type parameters begins.
fn entry_role(parent: &str, field: Option<&str>, kind: &str) -> Role {
    match (parent, field, kind) {
        ("case_clause", None, "case_pattern") => Role::Pattern,
        ("function_definition" | "class_definition", Some("type_parameters"), _) => Role::TypeParameters,
        _ => Role::Use,
    }
}

/// The role of a part of what is assigned to.
fn target_role(parent: &str, field: Option<&str>, kind: &str) -> Role {
    match (parent, kind) {
        ("generic_type", "type_parameter") => Role::TypeParameters,
        ("attribute", _) if field != Some("attribute") => Role::Use,
        (
            "as_pattern_target"
            | "attribute"
            | "dictionary_splat_pattern"
            | "dotted_name"
            | "expression_list"
            | "generic_type"
            | "list"
            | "list_pattern"
            | "list_splat"
            | "list_splat_pattern"
            | "parenthesized_expression"
            | "pattern_list"
            | "tuple"
            | "tuple_pattern"
            | "type"
            | "ERROR",
            _,
        ) => Role::Target,
        _ => Role::Use,
    }
}

/// The role of a part of what a `case` matches.
fn pattern_role(parent: &str, field: Option<&str>, node: Node<'_>) -> Role {
    match (parent, node.kind()) {
        ("as_pattern", "identifier") => Role::Target,
        // What is called, a key, and the name before `=` are looked up.
        ("class_pattern", "dotted_name") | ("keyword_pattern", "identifier") => Role::Use,
        ("dict_pattern", _) if field == Some("key") => Role::Use,
        (_, "dotted_name") if node.named_child_count() == 1 => Role::Target,
        (_, "dotted_name") => Role::Use,
        _ => Role::Pattern,
    }
}

/// The role of a part of a list of type parameters.
fn type_parameters_role(parent: &str, kind: &str, is_first: bool) -> Role {
    match parent {
        "constrained_type" | "generic_type" if !is_first => Role::Use,
        "constrained_type" | "generic_type" | "list_splat" | "splat_type" | "type" | "type_parameter" | "ERROR"
            if kind != "tuple" =>
        {
            Role::TypeParameters
        }
        _ => Role::Use,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str, selector: Selector) -> Vec<&str> {
        select(text, selector).into_iter().map(|range| &text[range]).collect()
    }

    #[track_caller]
    fn names(text: &str, expected: &str) {
        assert_eq!(found(text, Selector::Names).join(" "), expected, "{text}");
    }

    #[track_caller]
    fn declarations(text: &str, expected: &str) {
        assert_eq!(found(text, Selector::Declarations).join(" "), expected, "{text}");
    }

    #[test]
    fn names_are_identifiers_and_no_keywords() {
        names("if True and not None: return await x", "x");
        names("import a.b as c; from .d import e as f", "a b c d e f");
        names("from __future__ import annotations", "__future__ annotations");
        names("f(key=a.b)[c] @ d # e", "f key a b c d");
        names("f'{a!r:>{w}} b {c=}' 'd'", "a w c");
        names("ünï = 漢 = 𝔘", "ünï 漢 𝔘");
        names("global a; nonlocal b; del c", "a b c");
    }

    #[test]
    fn soft_keywords_may_be_names() {
        names("type = match = case = _ = print = exec = 1", "type match case _ print exec");
        names("type(match).case", "type match case");
        names("type X = int\ntype Y[T] = T", "X int Y T T");
        names("type(a.b).c = d", "type a b c d");
        names("match x:\n    case _: print >> f\n", "x _ print f");
    }

    #[test]
    fn definitions_declare() {
        declarations("@d\nclass C(B, metaclass=M): pass", "C");
        declarations("def f(a, /, b: int, c=d, *e: int, g: G = 2, **h) -> R: pass", "f a b c e g h");
        declarations("async def f(self, *, a): return lambda b, *c, d=1, **e: b", "f self a b c d e");
    }

    #[test]
    fn assignments_declare() {
        declarations("a, (b, *c), [d, e.f], g[h] = i = j", "a b c d f i");
        declarations("type(a.b).c = d", "c");
        declarations("a: int\nself.b: int = c\nd += 1\ne.f.g = h\n(i) = 1", "a b d g i");
        declarations("if (a := b): c == d", "a");
        declarations("for a, *b in c: pass\nelse: d", "a b");
        declarations("[x + z for x, (y, z) in w if (n := x) for v in x]", "x y z n v");
        declarations("{k: v for k, v in m}", "k v");
    }

    #[test]
    fn context_managers_and_handlers_declare() {
        declarations("with a as b, c() as (d, e.f): pass", "b d f");
        declarations("with (open(a) as b, c as d, e): pass\nasync with (f as g): pass", "b d g");
        declarations("try: pass\nexcept (A, B) as e: pass\nexcept C: pass\n", "e");
        declarations("try: pass\nexcept* C as g: pass\n", "g");
    }

    #[test]
    fn patterns_capture() {
        declarations("match a:\n    case {'k': b, C.D: e, **f} if g: pass\n", "b e f");
        declarations("match a:\n    case [b, *c] | (d, _): pass\n", "b c d");
        declarations("match a:\n    case P(b, c=d) as e: pass\n", "b d e");
        declarations("match a:\n    case b.c | -1 | None: pass\n    case d: f = 1\n    case e, *_: pass\n", "d f e");
    }

    #[test]
    fn type_statements_declare() {
        declarations("type A = B[c]", "A");
        declarations("type A[T: int, *Q] = list[T]", "A T Q");
        declarations("def f[T, *U, **V, W: (int, str)](): pass", "f T U V W");
        declarations("class C[T: int = str, *U = *tuple[int], V = None](B[T]): pass", "C T U V");
        declarations("x: dict[str, int] = y", "x");
    }

    #[test]
    fn uses_do_not_declare() {
        declarations("import a as b\nfrom c import d as e\ndel f\nglobal g\nh[i] = j(k=l)\nm == n", "");
    }

    #[test]
    fn ranges_are_byte_offsets() {
        assert_eq!(select("\u{feff}é = x\r\ny\r\n", Selector::Names), [3..5, 8..9, 11..12]);
        assert_eq!(select("# c\rx = 1\ry", Selector::Names), [4..5, 10..11]);
        names("\u{c}x", "x");
        for text in ["", "\u{feff}", "\n", "\0", "\r"] {
            assert!(select(text, Selector::Names).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn broken_texts_yield_what_parses() {
        names("x = 1\ndef f(a, b:\n", "x f a b");
        declarations("x = 1\n)\ny = 2\n", "x y");
    }

    #[test]
    fn deep_and_wide_texts_are_walked() {
        let depth = 10_000;
        let deep = format!("x = {}y{}", "(".repeat(depth), ")".repeat(depth));
        names(&deep, "x y");
        names(&"(".repeat(depth), "");
        assert_eq!(select(&"x = 1\n".repeat(depth), Selector::Declarations).len(), depth);
        assert_eq!(select(&"a = ".repeat(depth), Selector::Names).len(), depth);
    }

    proptest! {
        #[test]
        fn ranges_are_ordered_and_declarations_are_names(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "x", " ", "\n", "    ", "def ", "class ", "(", ")", "[", "]", ":", "=", ",", ".", "*", "f'{", "}'", "'",
                    "match ", "case ", "type ", "lambda ", "for ", "in ", "as ", "with ", "é", "\r", "\0", "\u{feff}", "😀",
                ]),
                0..80,
            ),
        ) {
            let text = parts.concat();
            let names = select(&text, Selector::Names);
            prop_assert!(names.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert!(names.iter().all(|range| text.get(range.clone()).is_some()));
            prop_assert!(select(&text, Selector::Declarations).iter().all(|range| names.contains(range)));
        }
    }
}
