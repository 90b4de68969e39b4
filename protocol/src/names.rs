//! Names of peers: which are names, which are the same, and which match a search.

use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// The most characters of a name; a line of a terminal holds it beside a peer id.
pub const CHARS_MAX: usize = 64;

/// The fewest characters of a part that is searched for: one letter would match nearly everybody.
pub const PART_CHARS_MIN: usize = 2;

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("got an empty name, expected 1 to {CHARS_MAX} characters")]
    Empty,
    /// Too long.
    #[error("got a name of {got} characters, expected 1 to {CHARS_MAX}")]
    TooLong {
        /// Its characters (Unicode scalar values).
        got: usize,
    },
    /// It has a control character, which could write into a log or a terminal.
    #[error("got a name with the control character U+{code:04X}")]
    Control {
        /// Which one.
        code: u32,
    },
}

/// Checks that a text is a name: 1 to 64 characters, none of them a control character.
///
/// # Errors
/// When it is none, with the first rule that it breaks.
pub fn check(name: &str) -> Result<(), NameError> {
    let chars = name.chars().count();
    if chars == 0 {
        return Err(NameError::Empty);
    }
    if chars > CHARS_MAX {
        return Err(NameError::TooLong { got: chars });
    }
    match name.chars().find(|char| char.is_control()) {
        Some(control) => Err(NameError::Control { code: control.into() }),
        None => Ok(()),
    }
}

/// The one form of a name under which it is stored and compared: composed (NFC) and in lower case.
///
/// Composed again after the lower case, which may take a letter apart; so the form of a form is itself.
#[must_use]
pub fn normal(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfc().flat_map(char::to_lowercase).nfc().collect()
}

/// What a search looks for in names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part(String);

impl Part {
    /// A part to look for; nothing when it is shorter than 2 characters or no part of any name.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_long_enough = text.chars().count() >= PART_CHARS_MIN;
        (is_long_enough && check(text).is_ok()).then(|| Self(normal(text)))
    }

    /// The part in its normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name contains it, upper and lower case being the same.
    #[must_use]
    pub fn is_in(&self, name: &str) -> bool {
        self.is_in_normal(&normal(name))
    }

    /// The same for a name that already is in its normal form.
    #[must_use]
    pub fn is_in_normal(&self, normal: &str) -> bool {
        normal.contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_1_to_64_characters_and_no_control_character() {
        assert_eq!(check("a"), Ok(()));
        assert_eq!(check(&"é".repeat(64)), Ok(()));
        assert_eq!(check(&"é".repeat(65)), Err(NameError::TooLong { got: 65 }));
        assert_eq!(check(""), Err(NameError::Empty));
        assert_eq!(check("par\u{7}is"), Err(NameError::Control { code: 7 }));
        assert_eq!(check("par\u{9b}is"), Err(NameError::Control { code: 0x9b }));
    }

    #[test]
    fn names_that_look_the_same_have_one_form() {
        for (name, form) in [("Paris", "paris"), ("ZÜRICH", "zürich"), ("Zu\u{308}rich", "zürich"), ("ΣΑΣ", "σασ")]
        {
            assert_eq!(normal(name), form);
        }
    }

    #[test]
    fn a_part_has_at_least_two_characters() {
        assert_eq!(Part::new("p"), None);
        assert_eq!(Part::new("é"), None);
        assert_eq!(Part::new(""), None);
        assert_eq!(Part::new(&"p".repeat(65)), None);
        assert_eq!(Part::new("PA").unwrap().as_str(), "pa");
    }

    #[test]
    fn a_part_is_found_anywhere_and_in_any_case() {
        let part = Part::new("aRi").unwrap();
        assert!(part.is_in("Paris"));
        assert!(part.is_in("ARI"));
        assert!(!part.is_in("Prais"));
        assert!(Part::new("Ü").is_none());
        assert!(Part::new("zü").unwrap().is_in("ZU\u{308}RICH"));
    }

    proptest! {
        #[test]
        fn the_form_of_a_form_is_itself(name in any::<String>()) {
            let form = normal(&name);
            prop_assert_eq!(normal(&form), form);
        }

        #[test]
        fn every_name_has_itself_as_a_part(name in "\\PC{2,64}") {
            if let Some(part) = Part::new(&name) {
                prop_assert!(part.is_in(&name));
            }
        }
    }
}
