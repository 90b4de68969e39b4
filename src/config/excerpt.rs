//! The line of a file that a fault is in, with carets under what is wrong.

use std::ops::Range;

/// Characters of a line that are shown.
const SHOWN_MAX: usize = 100;

/// Characters that are shown before the fault where a line is cut.
const BEFORE_MAX: usize = 40;

/// What a line may hold that is never shown.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "token", "@"];

/// The line of `text` in which `span` begins, and carets under the part of the span that is on it.
pub(super) fn excerpt(text: &str, span: Range<usize>) -> String {
    let start = text.floor_char_boundary(span.start);
    let end = text.floor_char_boundary(span.end).max(start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let number = text[..line_start].matches('\n').count() + 1;
    let before = text[line_start..start].chars().count();
    let wide = text[start..end.min(line_end)].chars().count().max(1);

    let skipped = if before + wide > SHOWN_MAX { before.saturating_sub(BEFORE_MAX) } else { 0 };
    // A character that moves the cursor would move the carets away from what they point at.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text[line_start..line_end].chars().skip(skipped).take(SHOWN_MAX).map(plain).collect();
    let gutter = number.to_string();
    let carets = "^".repeat(wide.min(SHOWN_MAX - (before - skipped).min(SHOWN_MAX - 1)));
    format!(
        "{gutter} | {}\n{:width$} | {:indent$}{carets}",
        line.trim_end(),
        "",
        "",
        width = gutter.len(),
        indent = before - skipped
    )
}

/// The same for the name of a setting or of a section that is alone on its line. What stands behind a name that means nothing
/// may be a secret, so it is not shown; nor is a line that has more before the name.
pub(super) fn of_name(text: &str, span: Range<usize>) -> Option<String> {
    let start = text.floor_char_boundary(span.start);
    let end = text.floor_char_boundary(span.end).max(start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    if !text[line_start..start].chars().all(|c| c.is_whitespace() || c == '[') {
        return None;
    }
    let behind = if text[end..].trim_start().starts_with('=') { " = …" } else { "]" };
    let shown = format!("{}{behind}", &text[..end]);
    Some(excerpt(&shown, start..end))
}

/// The same for a text that cannot be read, so that nobody knows what its line means; nothing where it may hold a secret.
pub(super) fn of_unread(text: &str, span: Range<usize>) -> Option<String> {
    let excerpt = excerpt(text, span);
    let lower = excerpt.to_lowercase();
    (!SECRET_WORDS.iter().any(|word| lower.contains(word))).then_some(excerpt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_what_is_wrong() {
        let text = "[network]\nport = 70000 # many\n";
        assert_eq!(excerpt(text, 17..22), "2 | port = 70000 # many\n  |        ^^^^^");
    }

    #[test]
    fn wide_characters_and_tabs_take_one_column() {
        assert_eq!(excerpt("\té = 1", 3..4), "1 |  é = 1\n  |   ^");
        assert_eq!(excerpt("a\té = xyz", 7..10), "1 | a é = xyz\n  |       ^^^");
    }

    #[test]
    fn a_span_over_several_lines_is_marked_on_its_first() {
        assert_eq!(excerpt("a = [\n1,\n2]\n", 4..11), "1 | a = [\n  |     ^");
    }

    #[test]
    fn nothing_at_the_end_of_the_text_is_one_caret() {
        assert_eq!(excerpt("a = ", 4..4), "1 | a =\n  |     ^");
        assert_eq!(excerpt("", 0..0), "1 | \n  | ^");
        assert_eq!(excerpt("é", 1..9), "1 | é\n  | ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault() {
        let text = format!("{}WRONG{}", "x".repeat(300), "y".repeat(300));
        let shown = excerpt(&text, 300..305);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], format!("1 | {}WRONG{}", "x".repeat(40), "y".repeat(55)));
        assert_eq!(lines[1], format!("  | {}^^^^^", " ".repeat(40)));
        let all = excerpt(&"x".repeat(300), 0..300);
        assert_eq!(all, format!("1 | {}\n  | {}", "x".repeat(100), "^".repeat(100)));
    }

    #[test]
    fn behind_a_name_nothing_is_shown() {
        assert_eq!(of_name("a = 1\npasword = \"x\"\n", 6..13), Some("2 | pasword = …\n  | ^^^^^^^".to_owned()));
        assert_eq!(of_name(" [[netwrok]]\n", 3..10), Some("1 |  [[netwrok]\n  |    ^^^^^^^".to_owned()));
        assert_eq!(of_name("bus = { tokn = \"x\", uzer = 1 }", 19..23), None);
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        assert!(of_unread("a = \"b", 4..6).is_some());
        for text in ["Password = \"x", "url = \"nats://me:pw@host", "api_token = x"] {
            assert_eq!(of_unread(text, 4..6), None, "{text}");
        }
    }
}
