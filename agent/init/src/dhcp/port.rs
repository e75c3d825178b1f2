//! One device's DHCP socket.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};

use dhcproto::v4::{
    CLIENT_PORT, Decodable, Decoder, Encodable, MIN_PACKET_SIZE, Message, SERVER_PORT,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::filter::filter;
use super::machine::Destination;

/// No DHCP message is larger than an Ethernet frame's payload; a longer one is cut and does not decode.
const MAX_MESSAGE_BYTES: usize = 2048;
/// A flood of something else gets no more of our time than this at once.
const MAX_STRANGERS: usize = 32;

#[derive(Debug)]
pub(super) struct Port {
    socket: Socket,
}

impl Port {
    /// Bound to the device, so that it works before the device has an address, and beside other devices'.
    pub(super) fn open(device: &str) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    pub(super) fn send(&self, to: Destination, message: &Message) -> io::Result<()> {
        let mut bytes = message.to_vec().map_err(io::Error::other)?;
        // Some relays drop what is shorter than a BOOTP message (RFC 1542 §2.1).
        bytes.resize(bytes.len().max(MIN_PACKET_SIZE), 0);
        let address = match to {
            Destination::Broadcast => Ipv4Addr::BROADCAST,
            Destination::Server(server) => server,
        };
        self.socket
            .send_to(&bytes, &SocketAddrV4::new(address, SERVER_PORT).into())?;
        Ok(())
    }

    /// The next datagram that is a DHCP message, if it is among the first few.
    pub(super) fn receive(&self) -> Option<Message> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        for _ in 0..MAX_STRANGERS {
            match (&self.socket).read(&mut buffer) {
                Ok(length) => {
                    let clean = filter(&buffer[..length]).unwrap_or_default();
                    if let Ok(message) = Message::decode(&mut Decoder::new(&clean)) {
                        return Some(message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        None
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
