//! What neighbours in the graph of shared memory tell each other, a datagram each.

use std::os::unix::net::UnixDatagram;

use bursar::MbufHandle;

use super::BATCH;

/// What neighbours tell each other.
pub enum Packet {
    /// Down: messages, by number and handle.
    Messages(Vec<(u64, MbufHandle)>),
    /// Down: what follows begins with this number, and what came before from here is void.
    Begin(u64),
    /// Down: no more messages.
    End,
    /// Up: all messages below this number are at their end.
    Done(u64),
    /// Up, for a node that died: begin anew.
    Resend,
}

/// Bytes of a message's number and handle.
const ENTRY: usize = 8 + MbufHandle::BYTES;

impl Packet {
    /// Sends it whole.
    pub fn send(&self, socket: &UnixDatagram) {
        let mut bytes = Vec::new();
        let (kind, number) = match self {
            Packet::Messages(_) => (0, 0),
            Packet::Begin(number) => (1, *number),
            Packet::End => (2, 0),
            Packet::Done(number) => (3, *number),
            Packet::Resend => (4, 0),
        };
        bytes.push(kind);
        bytes.extend(number.to_le_bytes());
        if let Packet::Messages(messages) = self {
            for (number, handle) in messages {
                bytes.extend(number.to_le_bytes());
                bytes.extend(handle.to_bytes());
            }
        }
        socket.send(&bytes).expect("the link holds");
    }

    /// Waits for the next one.
    pub fn receive(socket: &UnixDatagram) -> Packet {
        let mut bytes = [0; 9 + BATCH * ENTRY];
        let len = socket.recv(&mut bytes).expect("the link holds");
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let entry = |at: usize| {
            let handle = bytes[at + 8..at + ENTRY].try_into().expect("a handle");
            (number(at), MbufHandle::from_bytes(handle))
        };
        match bytes[0] {
            0 => Packet::Messages((9..len).step_by(ENTRY).map(entry).collect()),
            1 => Packet::Begin(number(1)),
            2 => Packet::End,
            3 => Packet::Done(number(1)),
            _ => Packet::Resend,
        }
    }
}
