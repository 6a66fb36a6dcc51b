//! What of a Python text is code: neither comments nor the layout of lines tell anything to the files that import it.
//!
//! Pure syntax. Where that is in doubt, all of the text counts.

use std::ops::Range;

use tree_sitter::Parser;

use crate::model::Digest;

/// A larger text counts as it is; so does one that Pyright finds too large to read.
const MAX_TEXT: usize = 1 << 20;
/// Comments with one of these can mean something to a type checker.
const TELLING: [&str; 3] = ["type", "pyright", "mypy"];
/// What may stand at the end of a line, or alone in one.
const BLANK: [char; 4] = [' ', '\t', '\r', '\x0c'];

/// Of bytes.
type Ranges = Vec<Range<usize>>;

/// A digest of a text's code: that of another text is the same only if the two differ in nothing but comments, empty lines
/// and what is blank at the end of lines.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    let text = std::str::from_utf8(bytes).ok().and_then(code);
    Digest::of(text.as_deref().map_or(bytes, str::as_bytes))
}

/// A text without the rest; none where it does not parse as a whole, or has line ends that not all take for such.
fn code(text: &str) -> Option<String> {
    let is_lone = |(index, _): (usize, &str)| text.as_bytes().get(index + 1) != Some(&b'\n');
    if text.len() > MAX_TEXT || text.match_indices('\r').any(is_lone) {
        return None;
    }
    let (comments, strings) = parts(text)?;
    let mut code = String::with_capacity(text.len());
    let (mut comments, mut strings) = (comments.into_iter().peekable(), strings.into_iter().peekable());
    let mut begin = 0;
    for line in text.split('\n') {
        let end = begin + line.len();
        let is_within = strings.peek().is_some_and(|string| string.start < begin && begin < string.end);
        while strings.next_if(|string| string.end <= end).is_some() {}
        let leads_on = strings.peek().is_some_and(|string| string.start < end);
        let comment = comments.next_if(|comment| comment.start <= end);
        let kept = comment.map_or(line, |comment| &line[..comment.start - begin]);
        let kept = if leads_on { kept } else { kept.trim_end_matches(BLANK) };
        // After a backslash, an empty line ends the one before.
        if is_within || !kept.is_empty() || code.ends_with("\\\n") {
            code.push_str(kept);
            code.push('\n');
        }
        begin = end + 1;
    }
    Some(code)
}

/// The comments that mean nothing, and the strings, in their order; none of a text that does not parse.
fn parts(text: &str) -> Option<(Ranges, Ranges)> {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_python::LANGUAGE.into()).ok()?;
    let tree = parser.parse(text, None)?;
    if tree.root_node().has_error() {
        return None;
    }
    let (mut comments, mut strings) = (Ranges::new(), Ranges::new());
    let mut cursor = tree.walk();
    loop {
        let node = cursor.node();
        let range = node.byte_range();
        match node.kind() {
            "comment" => comments.extend(Some(range).filter(|range| !is_telling(&text[range.clone()]))),
            "string" => strings.push(range),
            _ if cursor.goto_first_child() => continue,
            _ => {}
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return Some((comments, strings));
            }
        }
    }
}

fn is_telling(comment: &str) -> bool {
    TELLING.iter().any(|word| comment.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_layout_of_lines_are_no_code() {
        let text = "import a\n\n\ndef f(x):\n    '''Text # one\n\n    two'''\n    return x\n";
        for other in [
            "import a\ndef f(x):\n    '''Text # one\n\n    two'''\n    return x",
            "# why\nimport a  # how\n\t \ndef f(x):  \n    '''Text # one\n\n    two'''\n# out\n    return x#\n\n",
            "import a\r\n\r\ndef f(x):\r\n    '''Text # one\n\n    two'''\n    return x\r\n",
        ] {
            assert_eq!(code(other), code(text), "{other:?}");
        }
        assert_eq!(digest(text.as_bytes()), digest(format!("# first\n{text}").as_bytes()));
        for other in [
            text.replace("# one", "# two"),
            text.replace("one\n\n", "one\n"),
            text.replace("one\n", "one  \n"),
            text.replace("    return", "  return"),
            text.replace("return x", "return (x)"),
            text.replace("import a", "import a  # type: ignore"),
            text.replace("import a", "# pyright: strict\nimport a"),
        ] {
            assert_ne!(code(&other), code(text), "{other:?}");
        }
    }

    #[test]
    fn what_is_in_doubt_counts_as_it_is() {
        for text in ["def f(:\n", "x = 1 # one\ry = 2\n", "'''open # one\n"] {
            assert_eq!(code(text), None, "{text:?}");
            assert_eq!(digest(text.as_bytes()), Digest::of(text.as_bytes()));
        }
        assert_eq!(digest(b"\xff # one\n"), Digest::of(b"\xff # one\n"));
        let large = format!("x = 1\n{}", "# more\n".repeat(MAX_TEXT / 7));
        assert_eq!(digest(large.as_bytes()), Digest::of(large.as_bytes()));
        // An empty line after a backslash ends the statement before.
        assert_ne!(code("x = 1 \\\n\n-y\n"), code("x = 1 \\\n-y\n"));
        // In strings with expressions, hashes can be text, too.
        assert_ne!(code("x = f'''{a} # one\n'''\n"), code("x = f'''{a} # two\n'''\n"));
    }
}
