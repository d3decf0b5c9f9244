//! What JSON is (RFC 8259), told without the parser that the gateway uses.

/// Whether `bytes` are one JSON text in UTF-8, perhaps with white space around it.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && Reader { rest: bytes }.text().is_some()
}

/// Each step takes what it names from the front, or there is none.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn text(&mut self) -> Option<()> {
        // What closes each array and object that is open, so that depth costs no stack.
        let mut open = Vec::new();
        loop {
            self.space();
            match self.value()? {
                None => {}
                Some(end) => {
                    self.space();
                    if self.rest.first() != Some(&end) {
                        open.push(end);
                        self.name(end)?;
                        continue;
                    }
                    self.byte();
                }
            }
            loop {
                self.space();
                let Some(end) = open.last().copied() else {
                    return self.rest.is_empty().then_some(());
                };
                match self.byte()? {
                    b',' => {
                        self.space();
                        self.name(end)?;
                        break;
                    }
                    byte if byte == end => drop(open.pop()),
                    _ => return None,
                }
            }
        }
    }

    /// A value, or the begin of an array or object with what closes it.
    fn value(&mut self) -> Option<Option<u8>> {
        match *self.rest.first()? {
            b'[' => self.byte().map(|_| Some(b']')),
            b'{' => self.byte().map(|_| Some(b'}')),
            b'"' => self.string().map(|()| None),
            b't' => self.word(b"true").map(|()| None),
            b'f' => self.word(b"false").map(|()| None),
            b'n' => self.word(b"null").map(|()| None),
            _ => self.number().map(|()| None),
        }
    }

    /// In an object, the name before a value.
    fn name(&mut self, end: u8) -> Option<()> {
        if end == b'}' {
            self.string()?;
            self.space();
            self.word(b":")?;
        }
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        self.word(b"\"")?;
        loop {
            match self.byte()? {
                b'"' => return Some(()),
                b'\\' => match self.byte()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            self.byte().filter(u8::is_ascii_hexdigit)?;
                        }
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.rest.first() == Some(&b'-') {
            self.byte();
        }
        let starts_with_zero = self.rest.first() == Some(&b'0');
        if self.digits()? > 1 && starts_with_zero {
            return None;
        }
        if self.rest.first() == Some(&b'.') {
            self.byte();
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.rest.first() {
            self.byte();
            if let Some(b'+' | b'-') = self.rest.first() {
                self.byte();
            }
            self.digits()?;
        }
        Some(())
    }

    /// At least one digit; how many.
    fn digits(&mut self) -> Option<usize> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        (count > 0).then_some(count)
    }

    fn space(&mut self) {
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.rest = &self.rest[self.rest.iter().take_while(is_space).count()..];
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
}
