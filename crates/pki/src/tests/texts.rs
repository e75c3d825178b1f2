//! Pins and tokens as texts.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_pin_is_read_as_it_is_written(bytes in any::<Vec<u8>>()) {
        let pin = Pin::of(&CertificateDer::from(bytes));
        let text = pin.to_string();
        prop_assert_eq!(text.parse(), Ok(pin));
        let loud = text.to_uppercase().replace("SHA256", "sha256");
        prop_assert_eq!(loud.parse(), Ok(pin));
    }

    #[test]
    fn nothing_else_is_a_pin(text in "(sha256:)?[0-9a-fx]{60,68}|\\PC*") {
        match text.parse::<Pin>() {
            Ok(pin) => prop_assert_eq!(pin.to_string(), text.to_ascii_lowercase()),
            Err(BadPin) => {
                let digits = text.strip_prefix("sha256:").unwrap_or("");
                let good = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                prop_assert!(!good);
            }
        }
    }

    #[test]
    fn a_token_with_a_slip_admits_nobody(place in 0..85_usize, letter in "[0-9a-f.x]") {
        let token = Token::generate().unwrap();
        let verifier = token.verifier();
        let mut text = token.expose();
        text.replace_range(place..=place, &letter);
        match Token::parse(&text) {
            Ok(other) if other.expose() == token.expose() => prop_assert!(verifier.admits(&other)),
            Ok(other) => prop_assert!(other.id() != token.id() || !verifier.admits(&other)),
            Err(BadToken) => {}
        }
    }

    #[test]
    fn no_text_upsets_the_parsers(text in "(stj_)?[0-9a-f]{15,17}[.]?[0-9a-f]{63,65}|\\PC*") {
        if let Ok(token) = Token::parse(&text) {
            prop_assert_eq!(token.expose(), text.trim_ascii());
        }
        if let Ok(verifier) = text.parse::<Verifier>() {
            prop_assert_eq!(verifier.to_string(), text);
        }
    }
}

#[test]
fn a_token_is_known_again_by_its_verifier() {
    let (token, other) = (Token::generate().unwrap(), Token::generate().unwrap());
    let kept: Verifier = token.verifier().to_string().parse().unwrap();
    let shown = Token::parse(&format!("{}\n", token.expose())).unwrap();
    assert_eq!(shown.id(), token.id());
    assert!(kept.admits(&shown));
    assert!(!kept.admits(&other));
    assert_ne!(token.id(), other.id());
    assert_eq!(token.expose().len(), 85);
    // Neither what is logged nor what is stored says the secret.
    let secret = token.expose()[21..].to_owned();
    assert!(!format!("{token:?} {}", token.verifier()).contains(&secret));
}
