//! What a node keeps of a job, with all that can go wrong on its way.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use hyper::{Request, Response, StatusCode};
use stillmetal_proxy::{Body, BodyError};

/// A document and its faults.
#[derive(Debug, Clone, Default)]
pub struct FakeDocument {
    pub bytes: Vec<u8>,
    /// A transfer breaks off before this byte of the document, unless it begins there or later.
    pub cut_at: Option<usize>,
    /// Answers with all of it, whatever was asked for.
    pub ignores_ranges: bool,
    /// Says nothing more after this byte, and does not end.
    pub stalls_at: Option<usize>,
}

impl FakeDocument {
    pub(crate) fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let total = self.bytes.len();
        let from = match range(request) {
            "" => 0,
            _ if self.ignores_ranges => 0,
            range => {
                let from = range.trim_start_matches("bytes=").trim_end_matches('-');
                from.parse::<usize>().unwrap()
            }
        };
        let mut response = Response::new(self.body(from));
        if from > 0 {
            *response.status_mut() = if from < total {
                StatusCode::PARTIAL_CONTENT
            } else {
                StatusCode::RANGE_NOT_SATISFIABLE
            };
            let last = total.saturating_sub(1);
            let range = HeaderValue::try_from(format!("bytes {from}-{last}/{total}")).unwrap();
            response.headers_mut().insert(CONTENT_RANGE, range);
        }
        let length = HeaderValue::from(total.saturating_sub(from));
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response
    }

    fn body(&self, from: usize) -> Body {
        let end = |at: Option<usize>| at.filter(|at| *at > from);
        let until = end(self.cut_at).or(end(self.stalls_at));
        let bytes = self.bytes.get(from..until.unwrap_or(self.bytes.len()));
        let mut pieces: Vec<Result<Frame<Bytes>, BodyError>> = bytes
            .unwrap_or_default()
            .chunks(16 * 1024)
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        if end(self.cut_at).is_some() {
            pieces.push(Err("cut".into()));
        }
        let pieces = stream::iter(pieces);
        if end(self.stalls_at).is_some() {
            let forever = stream::pending();
            return BodyExt::boxed(StreamBody::new(stream::StreamExt::chain(pieces, forever)));
        }
        BodyExt::boxed(StreamBody::new(pieces))
    }
}

/// What part was asked for; empty: all of it.
pub(crate) fn range<B>(request: &Request<B>) -> &str {
    request
        .headers()
        .get(RANGE)
        .map_or("", |range| range.to_str().unwrap())
}
