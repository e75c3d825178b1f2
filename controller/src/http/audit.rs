//! Who did what: one line for each call that changes something, and for each that is refused.
//!
//! The lines are `tracing` events of target `audit`. Whatever a peer wrote is escaped, so that no
//! name or path can make a line look like another one, or move a terminal's cursor.

/// What a response tells the audit log beside its status: which job, which token.
#[derive(Debug, Clone)]
pub(crate) struct Subject(pub(crate) String);

/// One call, as far as it is known.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) who: &'a str,
    pub(crate) role: &'static str,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) method: &'a str,
    /// The route's pattern; `-`: none.
    pub(crate) route: &'a str,
    /// What it was about.
    pub(crate) subject: &'a str,
    /// `None`: the caller went away before there was an answer.
    pub(crate) status: Option<u16>,
    pub(crate) problem: Option<&'a str>,
}

impl Line<'_> {
    pub(crate) fn write(&self) {
        tracing::info!(
            target: "audit",
            who = %escape(self.who),
            role = self.role,
            address = %self.address,
            method = %escape(self.method),
            route = self.route,
            subject = %escape(self.subject),
            status = self.status.unwrap_or_default(),
            problem = self.problem.unwrap_or(if self.status.is_none() { "abandoned" } else { "-" }),
            "call"
        );
    }
}

/// Longest text of a peer in a line, in characters.
const LONGEST: usize = 256;

/// Without what could be taken for the end of a field or a line, or that a terminal obeys.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        if index == LONGEST {
            out.push('…');
            break;
        }
        if dangerous(c) {
            out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn dangerous(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c, '\\' | '"' | '=')
        // separators, and marks that turn the direction of what follows
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}
