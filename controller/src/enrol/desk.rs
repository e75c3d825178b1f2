//! Tokens and the machines that wait for approval. Pure: no clock, no certificates.

use std::collections::BTreeMap;

use api::fleet::{EnrolRequest, NodeId, PendingNode, TokenView};
use pki::{Token, Verifier};
use store::TokenRecord;

use super::identity::is_bound_to;
use crate::lifecycle::Millis;
use crate::refusal::{Kind, Refusal};

/// Machines that may wait at the same time: anybody can ask to be let in.
const PENDING: usize = 1_000;
/// One that has not asked again for so long is forgotten, ms.
const PATIENCE: Millis = 3_600_000;

/// Who may come in.
#[derive(Debug, Default)]
pub struct Admission {
    tokens: BTreeMap<String, TokenRecord>,
    pending: BTreeMap<String, Waiting>,
    /// Of tokens that are used: the fingerprint of the key that they were used for. Whoever did not
    /// hear the answer may ask for it again.
    answered: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Waiting {
    node: PendingNode,
    approved: bool,
}

/// A token that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    pub record: TokenRecord,
    /// And not only asked about again, with the same key.
    pub first: bool,
}

/// What is done with a machine that asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    /// By this token, which is used from now on.
    ByToken {
        token: String,
    },
    ByApproval,
    /// It waits.
    Not,
}

impl Admission {
    #[must_use]
    pub fn new(tokens: Vec<TokenRecord>) -> Self {
        Self {
            tokens: tokens
                .into_iter()
                .map(|token| (token.id.clone(), token))
                .collect(),
            pending: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// Looks at a machine's token or at what people said of it.
    ///
    /// # Errors
    /// A token that is unknown, used, late, or another machine's.
    pub fn look(
        &mut self,
        now: Millis,
        request: &EnrolRequest,
        fingerprint: &str,
        address: &str,
    ) -> Result<Admitted, Refusal> {
        if let Some(text) = &request.token {
            return self.by_token(now, request, text, fingerprint);
        }
        self.pending
            .retain(|_, it| it.node.last_ms.saturating_add(PATIENCE) > now);
        if let Some(waiting) = self.pending.get_mut(fingerprint) {
            waiting.node.last_ms = now;
            return Ok(if waiting.approved {
                Admitted::ByApproval
            } else {
                Admitted::Not
            });
        }
        if self.pending.len() >= PENDING {
            let detail = format!("{PENDING} machines wait for approval already");
            return Err(Refusal::new(Kind::QueueFull, detail)
                .next("approve or forget some (`still nodes --pending`), or use a token"));
        }
        let node = PendingNode {
            fingerprint: fingerprint.to_owned(),
            machine: request.machine.clone(),
            address: address.to_owned(),
            first_ms: now,
            last_ms: now,
        };
        let approved = false;
        self.pending
            .insert(fingerprint.to_owned(), Waiting { node, approved });
        Ok(Admitted::Not)
    }

    fn by_token(
        &self,
        now: Millis,
        request: &EnrolRequest,
        text: &str,
        fingerprint: &str,
    ) -> Result<Admitted, Refusal> {
        let token = Token::parse(text).map_err(|error| refused(&error.to_string()))?;
        // one answer for a token that was never made and one that is not whole
        let unknown = || refused("nobody made this token");
        let known = self.tokens.get(&token.id()).ok_or_else(unknown)?;
        let verifier: Verifier = known.verifier.parse().map_err(|_| unknown())?;
        if !verifier.admits(&token) {
            return Err(unknown());
        }
        let same_key = self
            .answered
            .get(&known.id)
            .is_some_and(|it| it == fingerprint);
        if known.used_by.is_some() && !same_key {
            return Err(used_before());
        }
        if known.expires_ms <= now {
            return Err(refused("the token has expired"));
        }
        let bound = known.machine.as_deref();
        if bound.is_some_and(|wanted| !is_bound_to(&request.machine, wanted)) {
            return Err(refused("the token is for another machine"));
        }
        Ok(Admitted::ByToken {
            token: known.id.clone(),
        })
    }

    /// From now on the token is worth nothing. The record is to be stored.
    ///
    /// # Errors
    /// Somebody else was faster.
    pub fn use_up(
        &mut self,
        token: &str,
        node: &NodeId,
        fingerprint: &str,
    ) -> Result<Used, Refusal> {
        let known = self.tokens.get_mut(token).ok_or_else(used_before)?;
        let before = self.answered.get(token).map(String::as_str);
        let again = known.used_by.as_ref() == Some(node) && before == Some(fingerprint);
        if known.used_by.is_some() && !again {
            return Err(used_before());
        }
        known.used_by = Some(node.clone());
        self.answered
            .insert(token.to_owned(), fingerprint.to_owned());
        Ok(Used {
            record: known.clone(),
            first: !again,
        })
    }

    /// A use that did not come about.
    pub fn give_back(&mut self, token: &str) {
        if let Some(known) = self.tokens.get_mut(token) {
            known.used_by = None;
        }
        self.answered.remove(token);
    }

    /// A machine that waits is in.
    pub fn forget_pending(&mut self, fingerprint: &str) {
        self.pending.remove(fingerprint);
    }

    #[must_use]
    pub fn pending(&self) -> Vec<PendingNode> {
        self.pending.values().map(|it| it.node.clone()).collect()
    }

    /// Somebody compared the fingerprint and says yes. Its beginning will do if there is one such.
    pub fn approve(&mut self, fingerprint: &str) -> Result<PendingNode, Refusal> {
        let mut fitting = self.pending.iter_mut();
        let fits = |text: &str| !fingerprint.is_empty() && text.starts_with(fingerprint);
        let first = fitting.find(|(text, _)| fits(text));
        let more = fitting.any(|(text, _)| fits(text));
        match first {
            Some((_, waiting)) if !more => {
                waiting.approved = true;
                Ok(waiting.node.clone())
            }
            Some(_) => Err(Refusal::new(
                Kind::Conflict,
                "several machines have such a fingerprint",
            )
            .at("/fingerprint")
            .next("give more of it")),
            None => Err(
                Refusal::new(Kind::NoSuchNode, "no machine with this fingerprint waits")
                    .at("/fingerprint")
                    .next("still nodes --pending lists those that do"),
            ),
        }
    }

    /// A new one.
    pub fn add_token(&mut self, record: TokenRecord) {
        self.tokens.insert(record.id.clone(), record);
    }

    pub fn remove_token(&mut self, id: &str) -> Option<TokenRecord> {
        self.tokens.remove(id)
    }

    /// Those that may still be used or were.
    pub fn tokens(&mut self, now: Millis) -> Vec<TokenView> {
        self.tokens.retain(|_, token| token.expires_ms > now);
        let tokens = &self.tokens;
        self.answered.retain(|token, _| tokens.contains_key(token));
        let view = |token: &TokenRecord| TokenView {
            id: token.id.clone(),
            token: None,
            machine: token.machine.clone(),
            expires_ms: token.expires_ms,
            used_by: token.used_by.clone(),
        };
        self.tokens.values().map(view).collect()
    }
}

fn refused(detail: &str) -> Refusal {
    Refusal::new(Kind::Forbidden, detail)
        .at("/token")
        .next("make a new one: still token create")
}

fn used_before() -> Refusal {
    refused("the token was used before")
}

#[cfg(test)]
mod tests {
    use api::fleet::MachineHints;

    use super::*;

    fn request(token: Option<&Token>, uuid: &str) -> EnrolRequest {
        EnrolRequest {
            csr_pem: String::new(),
            token: token.map(Token::expose),
            machine: MachineHints {
                uuid: Some(uuid.into()),
                ..MachineHints::default()
            },
        }
    }

    fn record(token: &Token, machine: Option<&str>) -> TokenRecord {
        TokenRecord {
            id: token.id(),
            verifier: token.verifier().to_string(),
            machine: machine.map(str::to_owned),
            made_by: "admin".into(),
            made_ms: 0,
            expires_ms: 1_000,
            used_by: None,
        }
    }

    #[test]
    fn a_token_lets_one_machine_in_once() {
        let token = Token::generate().unwrap();
        let mut admission = Admission::new(vec![record(&token, None)]);
        let request = request(Some(&token), "u");
        let admitted = admission.look(0, &request, "f", "a").unwrap();
        assert_eq!(admitted, Admitted::ByToken { token: token.id() });
        let node = NodeId::try_from("u".to_owned()).unwrap();
        admission.use_up(&token.id(), &node, "f").unwrap();
        let other_key = admission.use_up(&token.id(), &node, "g");
        assert_eq!(other_key.unwrap_err().kind, Kind::Forbidden);
        // the same key again: whoever asked did not hear the answer
        assert!(admission.look(0, &request, "f", "a").is_ok());
        admission.use_up(&token.id(), &node, "f").unwrap();
        let again = admission.look(0, &request, "g", "a").unwrap_err();
        assert_eq!(again.kind, Kind::Forbidden);
        assert!(again.detail.contains("used before"), "{again}");
    }

    #[test]
    fn late_foreign_and_unknown_tokens_are_refused() {
        let token = Token::generate().unwrap();
        let mut admission = Admission::new(vec![record(&token, Some("uu"))]);
        let other = admission
            .look(0, &request(Some(&token), "u"), "f", "a")
            .unwrap_err();
        assert!(other.detail.contains("another machine"), "{other}");
        let late = admission
            .look(1_000, &request(Some(&token), "uu"), "f", "a")
            .unwrap_err();
        assert!(late.detail.contains("expired"), "{late}");
        let foreign = Token::generate().unwrap();
        let unknown = admission
            .look(0, &request(Some(&foreign), "uu"), "f", "a")
            .unwrap_err();
        assert!(unknown.detail.contains("nobody made"), "{unknown}");
        assert!(
            admission.pending().is_empty(),
            "a bad token is not a request for approval"
        );
        assert!(
            admission
                .look(0, &request(Some(&token), "uu"), "f", "a")
                .is_ok()
        );
    }

    #[test]
    fn without_a_token_somebody_has_to_approve() {
        let mut admission = Admission::default();
        let request = request(None, "u");
        assert_eq!(
            admission.look(5, &request, "aaaa-1", "h").unwrap(),
            Admitted::Not
        );
        assert_eq!(
            admission.look(6, &request, "aaab-2", "h").unwrap(),
            Admitted::Not
        );
        assert_eq!(admission.approve("aaa").unwrap_err().kind, Kind::Conflict);
        assert_eq!(admission.approve("b").unwrap_err().kind, Kind::NoSuchNode);
        assert_eq!(admission.approve("").unwrap_err().kind, Kind::NoSuchNode);
        assert_eq!(admission.approve("aaaa").unwrap().fingerprint, "aaaa-1");
        assert_eq!(
            admission.look(7, &request, "aaaa-1", "h").unwrap(),
            Admitted::ByApproval
        );
        assert_eq!(
            admission.look(7, &request, "aaab-2", "h").unwrap(),
            Admitted::Not
        );
    }

    #[test]
    fn those_who_do_not_ask_again_are_forgotten_and_too_many_are_refused() {
        let mut admission = Admission::default();
        let request = request(None, "u");
        for number in 0..PENDING {
            let fingerprint = format!("{number:04}");
            assert_eq!(
                admission.look(0, &request, &fingerprint, "h").unwrap(),
                Admitted::Not
            );
        }
        let one_more = admission.look(0, &request, "x", "h").unwrap_err();
        assert_eq!(one_more.kind, Kind::QueueFull);
        assert_eq!(
            admission.look(PATIENCE, &request, "x", "h").unwrap(),
            Admitted::Not
        );
        assert_eq!(admission.pending().len(), 1);
    }
}
