//! Where one message of a connection ends and the next begins: requests of HTTP, and frames of a
//! WebSocket after the upgrade. What it cannot tell apart it passes on as it comes.

/// A head that is longer is none that it knows.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A whole request.
    Request(Vec<u8>),
    /// A whole frame with data.
    Frame(Vec<u8>),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Unit {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Request(bytes) | Self::Frame(bytes) | Self::Bytes(bytes) => bytes,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The client's side before an upgrade.
    Requests,
    /// The server's side before it has answered.
    Answer,
    Frames,
    Raw,
}

/// How long a unit is, and what it is.
type Cut = (usize, fn(Vec<u8>) -> Unit);

/// Cuts one direction of a connection into its units.
pub struct Units {
    waiting: Vec<u8>,
    kind: Kind,
}

impl Units {
    /// Of the direction to the server, or of the one back.
    pub fn new(upwards: bool) -> Self {
        Self { waiting: Vec::new(), kind: if upwards { Kind::Requests } else { Kind::Answer } }
    }

    /// The units that are whole with these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Unit> {
        self.waiting.extend_from_slice(bytes);
        let mut units = Vec::new();
        while let Some(unit) = self.next() {
            units.push(unit);
        }
        units
    }

    fn next(&mut self) -> Option<Unit> {
        let (length, make): Cut = match self.kind {
            Kind::Raw => (self.waiting.len(), Unit::Bytes),
            Kind::Frames => frame(&self.waiting)?,
            Kind::Requests | Kind::Answer => self.head()?,
        };
        if length == 0 || length > self.waiting.len() {
            return None;
        }
        let rest = self.waiting.split_off(length);
        Some(make(std::mem::replace(&mut self.waiting, rest)))
    }

    /// A head of HTTP, with its content if it is a request.
    fn head(&mut self) -> Option<Cut> {
        let end = self.waiting.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            if self.waiting.len() > HEAD_BYTES_MAX {
                self.kind = Kind::Raw;
            }
            return (self.kind == Kind::Raw).then_some((self.waiting.len(), Unit::Bytes));
        };
        let head = String::from_utf8_lossy(&self.waiting[..end]).to_ascii_lowercase();
        if self.kind == Kind::Answer {
            let upgraded = head.starts_with("http/1.1 101");
            self.kind = if upgraded { Kind::Frames } else { Kind::Raw };
            return Some((end + 4, Unit::Bytes));
        }
        if head.contains("upgrade: websocket") {
            self.kind = Kind::Frames;
            return Some((end + 4, Unit::Bytes));
        }
        let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let content = value.map_or(Ok(0), |value| value.trim().parse::<usize>());
        let (Ok(content), false) = (content, head.contains("transfer-encoding")) else {
            self.kind = Kind::Raw;
            return Some((self.waiting.len(), Unit::Bytes));
        };
        Some((end + 4 + content, Unit::Request))
    }
}

/// How long the frame is that these bytes begin with, RFC 6455, section 5.2.
fn frame(bytes: &[u8]) -> Option<Cut> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let length = match extended {
        0 => u64::from(second & 0x7f),
        more => bytes.get(2..2 + more)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let whole = 2 + extended + mask + usize::try_from(length).ok()?;
    let is_data = first & 0x80 != 0 && matches!(first & 0x0f, 1 | 2);
    Some((whole, if is_data { Unit::Frame } else { Unit::Bytes }))
}

#[test]
fn a_stream_is_cut_where_its_messages_end_however_it_arrives() {
    let request = b"POST /messages HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
    let upgrade = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
    let frames = [&[0x81, 0x82, 1, 2, 3, 4, 9, 9][..], &[0x89, 0], &long].concat();
    let stream = [&request[..], upgrade, &frames].concat();
    for piece in [1, 7, 1_000] {
        let mut units = Units::new(true);
        let cut: Vec<Unit> = stream.chunks(piece).flat_map(|bytes| units.feed(bytes)).collect();
        let wanted = [
            Unit::Request(request.to_vec()),
            Unit::Bytes(upgrade.to_vec()),
            Unit::Frame(frames[..8].to_vec()),
            Unit::Bytes(frames[8..10].to_vec()),
            Unit::Frame(long.clone()),
        ];
        assert_eq!(cut, wanted, "pieces of {piece}");
    }
    let mut answers = Units::new(false);
    let cut = answers.feed(b"HTTP/1.1 200 OK\r\n\r\nab");
    assert_eq!(cut.iter().map(|unit| unit.bytes().len()).collect::<Vec<_>>(), [19, 2]);
}
