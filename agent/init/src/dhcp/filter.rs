//! What the codec gets to see of a datagram from the network.
//!
//! `dhcproto` 0.15 panics on some options with a crafted length (a classless route with a prefix above 32; with debug
//! assertions also rapid commit and others), and a panic here is the end of PID 1. So only the options that the client
//! reads are passed on, the first of each kind, with a length that fits; everything else is dropped unread.

use dhcproto::v4::OptionCode;

/// Fixed fields, `sname` and `file`, then the magic cookie.
const FIXED_BYTES: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const PAD: u8 = 0;
const END: u8 = 255;
const HARDWARE_LENGTH: usize = 2;
/// `sname` and `file`: never read by us, and no reason to keep them.
const NAMES: std::ops::Range<usize> = 44..FIXED_BYTES;

/// The message with only the options that the client reads, or nothing if it is no DHCP message.
pub(super) fn filter(datagram: &[u8]) -> Option<Vec<u8>> {
    let options = datagram.get(FIXED_BYTES..)?.strip_prefix(&MAGIC)?;
    let mut clean = datagram.get(..FIXED_BYTES)?.to_vec();
    if clean[HARDWARE_LENGTH] > 16 {
        return None;
    }
    clean[NAMES].fill(0);
    clean.extend(MAGIC);
    let mut seen = [false; 256];
    let mut rest = options;
    while let Some((&code, tail)) = rest.split_first() {
        match code {
            PAD => {
                rest = tail;
                continue;
            }
            END => break,
            _ => {}
        }
        let (&length, tail) = tail.split_first()?;
        let (value, tail) = tail.split_at_checked(length.into())?;
        rest = tail;
        if fits(code.into(), value.len()) && !std::mem::replace(&mut seen[usize::from(code)], true)
        {
            clean.extend([code, length]);
            clean.extend(value);
        }
    }
    clean.push(END);
    Some(clean)
}

fn fits(code: OptionCode, length: usize) -> bool {
    match code {
        OptionCode::MessageType => length == 1,
        OptionCode::SubnetMask
        | OptionCode::ServerIdentifier
        | OptionCode::AddressLeaseTime
        | OptionCode::Renewal
        | OptionCode::Rebinding => length == 4,
        OptionCode::Router | OptionCode::DomainNameServer | OptionCode::NtpServers => {
            length > 0 && length.is_multiple_of(4)
        }
        OptionCode::Hostname | OptionCode::DomainName => length > 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{Decodable, Decoder, Message, MessageType};
    use proptest::prelude::*;

    use super::*;

    fn datagram(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes.extend(MAGIC);
        bytes.extend(options);
        bytes
    }

    fn decode(options: &[u8]) -> Message {
        Message::decode(&mut Decoder::new(&filter(&datagram(options)).unwrap())).unwrap()
    }

    #[test]
    fn what_is_read_comes_through() {
        let message = decode(&[0, 53, 1, 5, 1, 4, 255, 255, 255, 0, 255, 9, 9]);
        assert_eq!(message.opts().msg_type(), Some(MessageType::Ack));
        assert_eq!(message.opts().len(), 2);
    }

    /// Option 121 with a prefix length of 255 panics in dhcproto 0.15.
    #[test]
    fn classless_route_with_an_impossible_prefix() {
        let message = decode(&[53, 1, 2, 121, 8, 255, 1, 2, 3, 4, 5, 6, 7, 255]);
        assert_eq!(message.opts().len(), 1);
    }

    /// Option 80 must be empty; dhcproto asserts that it is.
    #[test]
    fn rapid_commit_with_content() {
        assert_eq!(decode(&[53, 1, 2, 80, 1, 0, 255]).opts().len(), 1);
    }

    #[test]
    fn the_first_of_two_counts_and_misfits_are_dropped() {
        let message = decode(&[53, 1, 2, 53, 1, 5, 3, 3, 1, 2, 3, 6, 0, 255]);
        assert_eq!(message.opts().msg_type(), Some(MessageType::Offer));
        assert_eq!(message.opts().len(), 1);
    }

    #[test]
    fn truncated_messages_are_none() {
        assert_eq!(filter(&datagram(&[53])), None);
        assert_eq!(filter(&datagram(&[53, 4, 1])), None);
        assert_eq!(filter(&[0; FIXED_BYTES]), None);
        assert_eq!(filter(&[]), None);
    }

    proptest! {
        #[test]
        fn the_codec_survives_what_comes_through(options in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(clean) = filter(&datagram(&options)) {
                prop_assert!(Message::decode(&mut Decoder::new(&clean)).is_ok());
            }
        }
    }
}
