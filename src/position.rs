//! A file's text and its places: converts between byte offsets and line-and-column positions.
//!
//! Pure arithmetic over one text. Reading files and finding names in them is left to `workspace`.

use crate::model::{Encoding, Position};

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Bytes between two entries of the table that counts wide characters.
const STRIDE: usize = 128;

/// A text with the tables that make each conversion logarithmic in its length.
///
/// A byte order mark belongs to no line for callers: column 0 of line 0 is what follows it.
/// The engine counts it as the first UTF-16 unit of line 0.
#[derive(Clone, Debug)]
pub struct SourceText {
    text: String,
    /// The offset of each line's first character.
    starts: Vec<usize>,
    /// The units before each multiple of `STRIDE`; empty where all is ASCII and units are bytes.
    totals: Vec<Units>,
}

/// How many units the characters that start in some stretch of text take.
#[derive(Clone, Copy, Debug, Default)]
struct Units {
    utf16: usize,
    utf32: usize,
}

impl Units {
    fn add(&mut self, byte: u8) {
        if is_leading(byte) {
            self.utf32 += 1;
            // Four bytes of UTF-8 are two units of UTF-16.
            self.utf16 += if byte >= 0xf0 { 2 } else { 1 };
        }
    }

    fn get(self, unit: WideUnit) -> usize {
        match unit {
            WideUnit::Utf16 => self.utf16,
            WideUnit::Utf32 => self.utf32,
        }
    }
}

/// The units that take counting, unlike bytes.
#[derive(Clone, Copy)]
enum WideUnit {
    Utf16,
    Utf32,
}

impl SourceText {
    /// Takes the text over and indexes it, in one pass.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self {
            starts: line_starts(&text),
            totals: if text.is_ascii() { Vec::new() } else { unit_totals(text.as_bytes()) },
            text,
        }
    }

    /// The whole text, with its byte order mark if it has one.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The byte offset of a position whose column counts `encoding`'s units.
    ///
    /// A line's end, before its line break, is a valid place. `None` where the line lies past the
    /// last one, the column past the line's end, or the column inside a character.
    #[must_use]
    pub fn offset(&self, position: Position, encoding: Encoding) -> Option<usize> {
        let line = position.line as usize;
        let start = *self.starts.get(line)?;
        self.locate(start, position.character, encoding).filter(|&offset| offset <= self.line_end(line))
    }

    /// The position of a byte offset, with the column in `encoding`'s units.
    ///
    /// An offset past the text, inside a character, inside a line break, or inside the byte order
    /// mark stands for the nearest valid place: the text's end, the character's start, the line's
    /// end, or the line's start.
    #[must_use]
    pub fn position(&self, offset: usize, encoding: Encoding) -> Position {
        let line = self.line_of(offset);
        self.place(line, self.starts[line], offset, encoding)
    }

    /// As [`Self::position`], in the engine's own units.
    #[must_use]
    pub fn engine_position(&self, offset: usize) -> Position {
        let line = self.line_of(offset);
        self.place(line, self.engine_start(line), offset, Encoding::Utf16)
    }

    /// As [`Self::offset`], from the engine's own units.
    #[must_use]
    pub fn engine_offset(&self, position: Position) -> Option<usize> {
        let line = position.line as usize;
        if line >= self.starts.len() {
            return None;
        }
        self.locate(self.engine_start(line), position.character, Encoding::Utf16)
            .filter(|&offset| offset <= self.line_end(line))
    }

    /// Where the engine starts to count a line's columns.
    fn engine_start(&self, line: usize) -> usize {
        if line == 0 { 0 } else { self.starts[line] }
    }

    fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset).saturating_sub(1)
    }

    /// The offset of a line's end, before its line break.
    fn line_end(&self, line: usize) -> usize {
        let Some(&next) = self.starts.get(line + 1) else {
            return self.text.len();
        };
        let content = &self.text[self.starts[line]..next];
        let without_break = content.strip_suffix("\r\n").or_else(|| content.strip_suffix(['\n', '\r']));
        next - content.len() + without_break.unwrap_or(content).len()
    }

    fn place(&self, line: usize, start: usize, offset: usize, encoding: Encoding) -> Position {
        let mut offset = offset.clamp(start, self.line_end(line));
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let character = match wide(encoding) {
            Some(unit) => self.units_before(offset, unit) - self.units_before(start, unit),
            None => offset - start,
        };
        Position { line: saturated(line), character: saturated(character) }
    }

    /// The offset of the character `column` units after `start`, wherever its line ends.
    fn locate(&self, start: usize, column: u32, encoding: Encoding) -> Option<usize> {
        let column = column as usize;
        match wide(encoding) {
            Some(unit) => self.offset_after(self.units_before(start, unit) + column, unit),
            None => Some(start + column).filter(|&offset| self.text.is_char_boundary(offset)),
        }
    }

    /// The units of all characters that start before an offset.
    fn units_before(&self, offset: usize, unit: WideUnit) -> usize {
        let Some(&(mut units)) = self.totals.get(offset / STRIDE) else {
            return offset;
        };
        for &byte in &self.text.as_bytes()[offset - offset % STRIDE..offset] {
            units.add(byte);
        }
        units.get(unit)
    }

    /// The offset at which `target` units lie behind; `None` past the end or inside a character.
    fn offset_after(&self, target: usize, unit: WideUnit) -> Option<usize> {
        if self.totals.is_empty() {
            return Some(target).filter(|&offset| offset <= self.text.len());
        }
        let entry = self.totals.partition_point(|units| units.get(unit) <= target) - 1;
        let mut units = self.totals[entry];
        let from = entry * STRIDE;
        for (offset, &byte) in (from..).zip(&self.text.as_bytes()[from..]) {
            if is_leading(byte) && units.get(unit) >= target {
                return (units.get(unit) == target).then_some(offset);
            }
            units.add(byte);
        }
        (units.get(unit) == target).then_some(self.text.len())
    }
}

fn wide(encoding: Encoding) -> Option<WideUnit> {
    match encoding {
        Encoding::Utf8 => None,
        Encoding::Utf16 => Some(WideUnit::Utf16),
        Encoding::Utf32 => Some(WideUnit::Utf32),
    }
}

fn is_leading(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn line_starts(text: &str) -> Vec<usize> {
    let first = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let bytes = text.as_bytes();
    let ends_line = |&index: &usize| match bytes[index] {
        b'\n' => true,
        b'\r' => bytes.get(index + 1) != Some(&b'\n'),
        _ => false,
    };
    std::iter::once(first).chain((0..bytes.len()).filter(ends_line).map(|index| index + 1)).collect()
}

fn unit_totals(bytes: &[u8]) -> Vec<Units> {
    let mut totals = Vec::with_capacity(bytes.len() / STRIDE + 1);
    let mut units = Units::default();
    for (offset, &byte) in bytes.iter().enumerate() {
        if offset.is_multiple_of(STRIDE) {
            totals.push(units);
        }
        units.add(byte);
    }
    if bytes.len().is_multiple_of(STRIDE) {
        totals.push(units);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENCODINGS: [Encoding; 3] = [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32];

    fn source(text: &str) -> SourceText {
        SourceText::new(text.to_owned())
    }

    fn at(line: u32, character: u32) -> Position {
        Position { line, character }
    }

    /// Every valid place with its offset, character by character; a byte order mark is given `mark` columns.
    fn places(text: &str, encoding: Encoding, mark: u32) -> Vec<(usize, Position)> {
        let mut places = Vec::new();
        let mut position = at(0, 0);
        let mut characters = text.char_indices().peekable();
        if let Some((0, '\u{feff}')) = characters.peek() {
            characters.next();
            position.character = mark;
        }
        let mut broken = false;
        while let Some((offset, character)) = characters.next() {
            if !broken {
                places.push((offset, position));
            }
            broken = character == '\r' && matches!(characters.peek(), Some((_, '\n')));
            if broken {
                continue;
            }
            if matches!(character, '\r' | '\n') {
                position = at(position.line + 1, 0);
            } else {
                let units = match encoding {
                    Encoding::Utf8 => character.len_utf8(),
                    Encoding::Utf16 => character.len_utf16(),
                    Encoding::Utf32 => 1,
                };
                position.character += u32::try_from(units).expect("few units");
            }
        }
        places.push((text.len(), position));
        places
    }

    #[test]
    fn counts_the_three_units() {
        let source = source("é = '漢😀x'");
        let offset = "é = '漢😀".len();
        assert_eq!(source.position(offset, Encoding::Utf8), at(0, 13));
        assert_eq!(source.position(offset, Encoding::Utf16), at(0, 8));
        assert_eq!(source.position(offset, Encoding::Utf32), at(0, 7));
        for encoding in ENCODINGS {
            assert_eq!(source.offset(source.position(offset, encoding), encoding), Some(offset));
        }
    }

    #[test]
    fn a_column_inside_a_character_is_no_place() {
        let source = source("😀é");
        assert_eq!(source.offset(at(0, 1), Encoding::Utf16), None);
        assert_eq!(source.offset(at(0, 2), Encoding::Utf16), Some(4));
        assert_eq!(source.offset(at(0, 5), Encoding::Utf8), None);
        assert_eq!(source.engine_offset(at(0, 1)), None);
    }

    #[test]
    fn lines_end_as_in_the_protocol() {
        let source = source("a\r\nb\rc\nd\u{c}e\u{2028}f\tg");
        for (line, end) in [(0, 1), (1, 1), (2, 1), (3, 7)] {
            assert!(source.offset(at(line, end), Encoding::Utf16).is_some(), "line {line}");
            assert_eq!(source.offset(at(line, end + 1), Encoding::Utf16), None, "line {line}");
        }
        assert_eq!(source.offset(at(4, 0), Encoding::Utf16), None);
        assert_eq!(source.position(2, Encoding::Utf16), at(0, 1), "between \\r and \\n");
    }

    #[test]
    fn the_line_after_the_last_break_is_a_line() {
        assert_eq!(source("a\n").offset(at(1, 0), Encoding::Utf16), Some(2));
        assert_eq!(source("a\n").offset(at(2, 0), Encoding::Utf16), None);
        assert_eq!(source("a").offset(at(0, 1), Encoding::Utf16), Some(1));
    }

    #[test]
    fn an_empty_text_has_one_place() {
        for text in ["", "\u{feff}"] {
            let source = source(text);
            for encoding in ENCODINGS {
                assert_eq!(source.offset(at(0, 0), encoding), Some(text.len()));
                assert_eq!(source.offset(at(0, 1), encoding), None);
                assert_eq!(source.offset(at(1, 0), encoding), None);
                assert_eq!(source.position(9, encoding), at(0, 0));
            }
        }
    }

    #[test]
    fn only_the_engine_counts_the_byte_order_mark() {
        let source = source("\u{feff}x\ny");
        assert_eq!(source.offset(at(0, 0), Encoding::Utf16), Some(3));
        assert_eq!(source.position(3, Encoding::Utf8), at(0, 0));
        assert_eq!(source.position(0, Encoding::Utf8), at(0, 0));
        assert_eq!(source.engine_position(3), at(0, 1));
        assert_eq!(source.engine_offset(at(0, 0)), Some(0));
        assert_eq!(source.engine_offset(at(0, 2)), Some(4));
        assert_eq!(source.engine_offset(at(0, 3)), None);
        assert_eq!(source.engine_position(5), at(1, 0));
        assert_eq!(source.engine_offset(at(1, 1)), Some(6));
        assert!(source.text().starts_with(BYTE_ORDER_MARK));
    }

    #[test]
    fn far_positions_are_no_places() {
        let source = source("é\n");
        for encoding in ENCODINGS {
            assert_eq!(source.offset(at(u32::MAX, u32::MAX), encoding), None);
            assert_eq!(source.offset(at(0, u32::MAX), encoding), None);
            assert_eq!(source.position(usize::MAX, encoding), at(1, 0));
        }
        assert_eq!(source.engine_offset(at(u32::MAX, 0)), None);
    }

    #[test]
    fn one_long_wide_line_takes_no_scan_from_its_start() {
        let source = source(&"漢".repeat(350_000));
        for column in (0..350_000).step_by(7) {
            let offset = column as usize * 3;
            assert_eq!(source.offset(at(0, column), Encoding::Utf16), Some(offset));
            assert_eq!(source.position(offset, Encoding::Utf16), at(0, column));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_counting_characters(
            mark in proptest::bool::ANY,
            body in proptest::collection::vec(
                proptest::sample::select(vec!["a", "é", "漢", "😀", "\n", "\r\n", "\r", "\t", "\u{c}", "\u{2028}", "\u{feff}"]),
                0..400,
            ),
        ) {
            let text = format!("{}{}", if mark { BYTE_ORDER_MARK } else { "" }, body.concat());
            let source = source(&text);
            for encoding in ENCODINGS {
                let places = places(&text, encoding, 0);
                for &(offset, position) in &places {
                    prop_assert_eq!(source.position(offset, encoding), position);
                    prop_assert_eq!(source.offset(position, encoding), Some(offset));
                    let next = at(position.line, position.character + 1);
                    let expected = places.iter().find(|place| place.1 == next).map(|place| place.0);
                    prop_assert_eq!(source.offset(next, encoding), expected);
                }
            }
            for (offset, position) in places(&text, Encoding::Utf16, 1) {
                prop_assert_eq!(source.engine_position(offset), position);
                prop_assert_eq!(source.engine_offset(position), Some(offset));
            }
        }

        #[test]
        fn every_offset_has_a_valid_position(text in "(\r|\n|\\PC){0,200}", offset in 0_usize..1000) {
            let source = source(&text);
            for encoding in ENCODINGS {
                let found = source.offset(source.position(offset, encoding), encoding);
                prop_assert!(found.is_some_and(|found| found <= offset || text.starts_with(BYTE_ORDER_MARK)));
            }
        }
    }
}
