//! The own half of a stream, for the one who writes and the one who watches.
//!
//! The library remembers one waker per stream for window and reset together, so it gets one that
//! wakes both.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::{Reason, SendStream};

use crate::end::End;
use crate::handle::Common;
use crate::stream::StreamError;

pub(crate) struct Outbox {
    /// None once the stream has been dropped.
    send: Mutex<Option<SendStream<Bytes>>>,
    wakers: Arc<Wakers>,
    both: Waker,
    common: Arc<Common>,
}

#[derive(Default)]
struct Wakers {
    writer: AtomicWaker,
    watcher: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.writer.wake();
        self.watcher.wake();
    }
}

impl Outbox {
    pub(crate) fn new(send: SendStream<Bytes>, common: &Arc<Common>) -> Arc<Self> {
        let wakers = Arc::<Wakers>::default();
        Arc::new(Self {
            send: Mutex::new(Some(send)),
            both: Waker::from(Arc::clone(&wakers)),
            wakers,
            common: Arc::clone(common),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<SendStream<Bytes>>> {
        self.send.lock().expect("nothing panics while it holds it")
    }

    /// Sends as many of the bytes as there is window for, up to `most`; waits for some.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut send = self.lock();
        let Some(send) = &mut *send else {
            return Poll::Ready(Err(StreamError::ShutDown.into()));
        };
        let wanted = buf.len().min(most);
        send.reserve_capacity(wanted);
        let mut capacity = send.capacity();
        while capacity == 0 {
            self.wakers.writer.register(cx.waker());
            let both = &mut Context::from_waker(&self.both);
            capacity = match ready!(send.poll_capacity(both)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(_)) | None => return Poll::Ready(Err(self.broken(send))),
            };
        }
        let count = capacity.min(wanted);
        let data = Bytes::copy_from_slice(&buf[..count]);
        match send.send_data(data, false) {
            Ok(()) => Poll::Ready(Ok(count)),
            Err(_) => Poll::Ready(Err(self.broken(send))),
        }
    }

    /// Nothing more follows.
    pub(crate) fn end(&self) -> io::Result<()> {
        match &mut *self.lock() {
            None => Err(StreamError::ShutDown.into()),
            Some(send) => send
                .send_data(Bytes::new(), true)
                .map_err(|_| self.broken(send)),
        }
    }

    /// Why nothing can be written any more.
    fn broken(&self, send: &mut SendStream<Bytes>) -> io::Error {
        let tunnel = |end| StreamError::Tunnel { source: end };
        if let Some(end) = self.common.end() {
            return tunnel(end).into();
        }
        match send.poll_reset(&mut Context::from_waker(&self.both)) {
            Poll::Ready(Ok(Reason::NO_ERROR)) | Poll::Pending => StreamError::NotRead,
            Poll::Ready(Ok(reason)) => StreamError::Reset { reason },
            Poll::Ready(Err(error)) => tunnel(End::of(error)),
        }
        .into()
    }

    /// Ready when the peer has reset the stream, the connection is over, or the stream was dropped.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wakers.watcher.register(cx.waker());
        match &mut *self.lock() {
            None => Poll::Ready(()),
            Some(send) => send
                .poll_reset(&mut Context::from_waker(&self.both))
                .map(drop),
        }
    }

    /// The library's part of it. It resets the stream when the last part is dropped.
    pub(crate) fn abandon(&self) -> Option<SendStream<Bytes>> {
        let send = self.lock().take();
        self.wakers.watcher.wake();
        send
    }
}
