//! Join tokens: what lets a machine in without somebody's approval, once.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::provider::random;
use crate::text::{hex, unhex};

const PREFIX: &str = "stj_";

/// `stj_<id>.<secret>`: a public name of 64 bits and a secret of 256, in hexadecimal.
///
/// The store keeps the name and the [`Verifier`]; the secret is in nobody's hands but the machine's
/// that is to join. `Debug` shows the name only.
#[derive(Clone)]
pub struct Token {
    id: [u8; 8],
    secret: [u8; 32],
}

/// Not a token. Says nothing of the text, which may be one with a slip in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a join token is {PREFIX}, 16 hexadecimal digits, a full stop and 64 more digits")]
pub struct BadToken;

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self {
            id: random()?,
            secret: random()?,
        })
    }

    /// Reads one; white space around it, such as a file's last line feed, is passed over.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, BadToken> {
        let (id, secret) = text
            .trim_ascii()
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('.'))
            .ok_or(BadToken)?;
        Ok(Self {
            id: unhex(id).ok_or(BadToken)?,
            secret: unhex(secret).ok_or(BadToken)?,
        })
    }

    /// Its public name, 16 digits.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// All of it, for the machine that is to join and for nobody else.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}.{}", hex(&self.id), hex(&self.secret))
    }

    /// What tells the token again without being it.
    pub fn verifier(&self) -> Verifier {
        Verifier(Sha256::digest(self.secret).into())
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        Self::parse(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a token's secret, written as 64 digits: for the store. The secret has 256 random bits,
/// so there is nothing to guess and nothing that a slow hash would add.
#[derive(Debug, Clone, Copy)]
pub struct Verifier([u8; 32]);

impl Verifier {
    /// Whether it is this token's. Takes the same time whatever differs.
    pub fn admits(&self, token: &Token) -> bool {
        let shown = token.verifier().0;
        let pairs = self.0.iter().zip(&shown);
        let difference = pairs.fold(0, |sum, (one, other)| black_box(sum | (one ^ other)));
        difference == 0
    }
}

impl FromStr for Verifier {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        unhex(text).map(Self).ok_or(BadToken)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}
