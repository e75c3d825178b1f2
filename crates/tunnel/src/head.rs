//! What a stream is for and who asks.

use std::collections::BTreeMap;
use std::fmt;

use http::header::{HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri};

/// Longest name of a service or key, in bytes.
const NAME: usize = 64;
/// Most fields of a head.
const FIELDS: usize = 32;
/// Longest head, all names and values together, in bytes. Well below what HTTP/2 is told to accept.
const TOTAL: usize = 8 * 1024;
/// Before each key, so that none is taken for one of HTTP's own.
const PREFIX: &str = "stillmetal-";

/// The service that a stream is opened for, and what the agent is to know about the caller.
///
/// Small: 64 bytes for a name, 32 fields, 8 KiB together. Names are made of `a`–`z`, `0`–`9` and
/// `-`; values are text without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    service: String,
    fields: BTreeMap<String, String>,
}

/// What is wrong with a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not a CONNECT without a port, so no service.
    #[error("the head names no service")]
    NoService,
    /// The name of a service or key is empty, too long, or made of other characters.
    #[error("{name:?} is no name: 1 to {NAME} of a-z, 0-9 and -")]
    Name {
        /// As given, shortened.
        name: String,
    },
    /// A value holds control characters, or is not UTF-8.
    #[error("the value of {key:?} is not text without control characters")]
    Value {
        /// Its key.
        key: String,
    },
    /// A key occurs twice.
    #[error("{key:?} is there twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// More fields than a head may have.
    #[error("more than {FIELDS} fields")]
    TooMany,
    /// Longer than a head may be.
    #[error("longer than {TOTAL} bytes")]
    TooLong,
}

impl Head {
    /// A head without fields.
    ///
    /// # Errors
    /// When the service is not a name.
    pub fn new(service: &str) -> Result<Self, HeadError> {
        Ok(Self {
            service: name(service)?.to_owned(),
            fields: BTreeMap::new(),
        })
    }

    /// Adds a field.
    ///
    /// # Errors
    /// When the key is not a name or there already, the value is not text, or it becomes too much.
    pub fn with(mut self, key: &str, value: &str) -> Result<Self, HeadError> {
        let key = name(key)?.to_owned();
        if value.contains(|c: char| c.is_ascii_control()) || value.trim() != value {
            return Err(HeadError::Value { key });
        }
        if self.fields.contains_key(&key) {
            return Err(HeadError::Twice { key });
        }
        if self.fields.len() == FIELDS {
            return Err(HeadError::TooMany);
        }
        self.fields.insert(key, value.to_owned());
        if self.length() > TOTAL {
            return Err(HeadError::TooLong);
        }
        Ok(self)
    }

    /// What the stream is for.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The value of a field.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(String::as_str)
    }

    /// All fields in the order of their keys.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn length(&self) -> usize {
        let fields = self.fields.iter();
        self.service.len() + fields.map(|(k, v)| k.len() + v.len()).sum::<usize>()
    }

    pub(crate) fn to_request(&self) -> Request<()> {
        let authority = Authority::try_from(self.service.as_str())
            .expect("letters, digits and hyphens are a host's name");
        let uri = Uri::from(authority);
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        for (key, value) in &self.fields {
            let key = HeaderName::try_from(format!("{PREFIX}{key}"))
                .expect("letters, digits and hyphens are a header's name");
            let value = HeaderValue::from_bytes(value.as_bytes())
                .expect("text without control characters is a header's value");
            request.headers_mut().insert(key, value);
        }
        request
    }

    pub(crate) fn of_request<B>(request: &Request<B>) -> Result<Self, HeadError> {
        let uri = request.uri();
        let service = match (request.method(), uri.authority()) {
            (&Method::CONNECT, Some(authority)) if authority.port().is_none() => authority.as_str(),
            _ => return Err(HeadError::NoService),
        };
        Self::new(service)?.with_all(request.headers())
    }

    /// Headers without the prefix are somebody's extension and passed over.
    fn with_all(mut self, headers: &HeaderMap) -> Result<Self, HeadError> {
        for (header, value) in headers {
            if let Some(key) = header.as_str().strip_prefix(PREFIX) {
                let value = str::from_utf8(value.as_bytes()).map_err(|_| HeadError::Value {
                    key: short(key).to_owned(),
                })?;
                self = self.with(key, value)?;
            }
        }
        Ok(self)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        for (key, value) in &self.fields {
            write!(f, " {key}={value:?}")?;
        }
        Ok(())
    }
}

fn name(name: &str) -> Result<&str, HeadError> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > NAME || !name.bytes().all(known) {
        return Err(HeadError::Name {
            name: short(name).to_owned(),
        });
    }
    Ok(name)
}

/// Enough of a name to recognise it in an error.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = String> {
        "[a-z0-9-]{1,64}"
    }

    fn values() -> impl Strategy<Value = String> {
        "[^\\x00-\\x1f\\x7f]{0,100}".prop_map(|value| value.trim().to_owned())
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            service in names(),
            fields in prop::collection::btree_map(names(), values(), 0..20),
        ) {
            let mut head = Head::new(&service).unwrap();
            for (key, value) in &fields {
                head = head.with(key, value).unwrap();
            }
            prop_assert_eq!(Head::of_request(&head.to_request()), Ok(head));
        }

        #[test]
        fn a_head_that_can_be_made_can_be_sent(
            service in any::<String>(),
            key in any::<String>(),
            value in any::<String>(),
        ) {
            if let Ok(head) = Head::new(&service).and_then(|head| head.with(&key, &value)) {
                prop_assert_eq!(Head::of_request(&head.to_request()), Ok(head));
            }
        }
    }

    #[test]
    fn bounds_are_kept() {
        let head = Head::new("docker").unwrap();
        let name = |name: &str| HeadError::Name {
            name: name.to_owned(),
        };
        assert_eq!(Head::new(""), Err(name("")));
        assert_eq!(Head::new("Docker"), Err(name("Docker")));
        assert_eq!(Head::new("a:80"), Err(name("a:80")));
        assert_eq!(Head::new(&"ä".repeat(65)), Err(name(&"ä".repeat(32))));
        assert!(Head::new(&"a".repeat(64)).is_ok());
        assert_eq!(head.clone().with("a b", ""), Err(name("a b")));
        let value = |key: &str| HeadError::Value {
            key: key.to_owned(),
        };
        assert_eq!(head.clone().with("a", "b\r\nc"), Err(value("a")));
        assert_eq!(head.clone().with("a", " b"), Err(value("a")));
        let twice = head.clone().with("a", "1").unwrap().with("a", "1");
        assert_eq!(
            twice,
            Err(HeadError::Twice {
                key: "a".to_owned()
            })
        );
        assert_eq!(
            head.clone().with("a", &"x".repeat(TOTAL)),
            Err(HeadError::TooLong)
        );
        let mut full = head;
        for field in 0..FIELDS {
            full = full.with(&format!("key-{field}"), "x").unwrap();
        }
        assert_eq!(full.with("one-more", "x"), Err(HeadError::TooMany));
    }

    #[test]
    fn other_requests_are_no_heads() {
        let get = Request::get("http://docker/").body(()).unwrap();
        assert_eq!(Head::of_request(&get), Err(HeadError::NoService));
        let port = Request::connect("docker:80").body(()).unwrap();
        assert_eq!(Head::of_request(&port), Err(HeadError::NoService));
        let user = Request::connect("a@docker").body(()).unwrap();
        assert!(Head::of_request(&user).is_err());
    }
}
