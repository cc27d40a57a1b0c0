//! CSV records with the line that each begins in, from any reader.
//!
//! What it is not: a CSV parser; quoting is `csv_core`'s business. It feeds that parser line by line, because an error
//! must name the line that a person sees in an editor: also after blank lines and with CRLF. Invariant: a record and a
//! line are bounded, so a quote that is never closed is found soon and does not read the whole file into memory.
//!
//! Source: RFC 4180.

use std::io::{self, BufRead, BufReader, Read};

use csv_core::ReadRecordResult;

/// Most bytes of a record, line ends within quotes included.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 10;

/// Fields that are told apart; a record with more is refused.
pub(crate) const FIELDS_MAX: usize = 32;

/// Reads records one after the other.
pub(crate) struct Records<R> {
    input: BufReader<R>,
    parser: csv_core::Reader,
    line: u64,
    text: Vec<u8>,
    /// Bytes of `text` that the parser has had.
    taken: usize,
    fields: Vec<u8>,
    ends: [usize; FIELDS_MAX],
}

/// One record.
pub(crate) struct Record<'r> {
    /// The line that it begins in, from 1.
    pub(crate) line: u64,
    fields: &'r [u8],
    ends: &'r [usize],
}

/// Why there is no record.
#[derive(Debug)]
pub(crate) enum RecordError {
    /// The reader failed.
    Read(io::Error),
    /// The text is none that can be taken apart; the line that the record begins in, its first bytes, and why.
    Content(u64, Vec<u8>, String),
}

impl<'r> Record<'r> {
    /// Number of fields.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field, unquoted.
    pub(crate) fn get(&self, index: usize) -> Option<&'r [u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.fields.get(start..end)
    }
}

impl<R: Read> Records<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            input: BufReader::with_capacity(1 << 18, reader),
            parser: csv_core::Reader::new(),
            line: 0,
            text: Vec::new(),
            taken: 0,
            fields: vec![0; RECORD_BYTES_MAX],
            ends: [0; FIELDS_MAX],
        }
    }

    /// The next record; none at the end. Blank lines are passed over.
    ///
    /// # Errors
    /// [`RecordError`]; what follows it makes no sense.
    pub(crate) fn read(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        let (mut line, mut fed, mut field_bytes, mut field_count) = (0, 0, 0, 0);
        loop {
            if self.taken == self.text.len() && !self.next_line()? {
                if fed == 0 {
                    return Ok(None);
                }
                return Err(self.refuse(line, field_bytes, "opens a quote that is never closed".to_owned()));
            }
            let rest = &self.text[self.taken..];
            if fed == 0 {
                line = self.line;
                if matches!(rest, b"\n" | b"\r\n") {
                    self.taken = self.text.len();
                    continue;
                }
            }
            fed += rest.len();
            if fed > RECORD_BYTES_MAX {
                let reason = format!(
                    "begins a record of more than {RECORD_BYTES_MAX} bytes; a quote may not be closed, or lines end with CR alone"
                );
                return Err(self.refuse(line, field_bytes, reason));
            }
            let (result, taken, written, ended) =
                self.parser.read_record(rest, &mut self.fields[field_bytes..], &mut self.ends[field_count..]);
            self.taken += taken;
            field_bytes += written;
            field_count += ended;
            match result {
                ReadRecordResult::Record => {
                    let (fields, ends) = (&self.fields[..field_bytes], &self.ends[..field_count]);
                    return Ok(Some(Record { line, fields, ends }));
                }
                ReadRecordResult::OutputEndsFull => {
                    let reason = format!("begins a record of more than {FIELDS_MAX} fields");
                    return Err(self.refuse(line, field_bytes, reason));
                }
                // The output has room for all that was fed, and the end of the input is found by `next_line`.
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull | ReadRecordResult::End => {}
            }
        }
    }

    /// Reads a line, ended by a newline also where the input has none at its end; false at the end.
    fn next_line(&mut self) -> Result<bool, RecordError> {
        self.text.clear();
        self.taken = 0;
        let most = RECORD_BYTES_MAX as u64 + 1;
        let count = self.input.by_ref().take(most).read_until(b'\n', &mut self.text).map_err(RecordError::Read)?;
        if count == 0 {
            return Ok(false);
        }
        if self.text.last() != Some(&b'\n') {
            self.text.push(b'\n');
        }
        self.line += 1;
        Ok(true)
    }

    /// Shows the record as far as it was taken apart, or else its line.
    fn refuse(&self, line: u64, field_bytes: usize, reason: String) -> RecordError {
        let begin = if field_bytes > 0 { &self.fields[..field_bytes] } else { &self.text[..] };
        RecordError::Content(line, begin[..begin.len().min(60)].to_vec(), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and fields of each record, then how it ended.
    fn read_all(text: &[u8]) -> (Vec<(u64, Vec<String>)>, Option<String>) {
        let mut records = Records::new(text);
        let mut found = Vec::new();
        loop {
            match records.read() {
                Ok(Some(record)) => {
                    let fields = (0..record.len()).map(|index| String::from_utf8_lossy(record.get(index).unwrap()));
                    found.push((record.line, fields.map(|field| field.into_owned()).collect()));
                }
                Ok(None) => return (found, None),
                Err(RecordError::Content(line, begin, reason)) => {
                    return (found, Some(format!("{line}: {:?} {reason}", String::from_utf8_lossy(&begin))));
                }
                Err(RecordError::Read(error)) => panic!("{error}"),
            }
        }
    }

    fn lines(text: &str) -> Vec<u64> {
        read_all(text.as_bytes()).0.into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn each_record_has_the_line_that_an_editor_shows() {
        assert_eq!(lines("a,b\nc,d\n"), [1, 2]);
        assert_eq!(lines("a,b\n\n\nc,d"), [1, 4]);
        assert_eq!(lines("a,b\r\n\r\nc,d\r\ne,f"), [1, 3, 4]);
        assert_eq!(lines("\"a\nb\r\nc\",d\ne,f\n"), [1, 4]);
        assert_eq!(lines("\"a\",\"\n\"\r\n\r\nc,d\r\n"), [1, 4]);
        assert_eq!(lines(""), [0; 0]);
        assert_eq!(lines("\n\r\n"), [0; 0]);
    }

    #[test]
    fn fields_are_unquoted_and_keep_what_is_in_quotes() {
        let (records, error) = read_all("\u{feff}a,\"b \"\"c\"\"\r\n\",,é\r\n\"\",x\"y\n".as_bytes());
        assert_eq!(error, None);
        let fields: Vec<_> = records.into_iter().map(|(_, fields)| fields).collect();
        assert_eq!(fields, [vec!["a", "b \"c\"\r\n", "", "é"], vec!["", "x\"y"]]);
    }

    #[test]
    fn a_quote_that_stays_open_is_told_with_the_line_where_it_opens() {
        let (records, error) = read_all(b"a,b\nc,\"d\ne,f\n");
        assert_eq!(
            (records.len(), error.as_deref()),
            (1, Some("2: \"cd\\ne,f\\n\" opens a quote that is never closed"))
        );
        let (_, error) = read_all(format!("a,b\n\"{}", "x,y\n".repeat(RECORD_BYTES_MAX)).as_bytes());
        let error = error.unwrap();
        assert!(error.starts_with("2: ") && error.contains("65536 bytes; a quote may not be closed"), "{error}");
        let (_, error) = read_all("x".repeat(RECORD_BYTES_MAX + 1).as_bytes());
        assert!(error.unwrap().starts_with("1: \"xxx"));
        let (_, error) = read_all(",".repeat(FIELDS_MAX + 1).as_bytes());
        assert!(error.unwrap().contains("more than 32 fields"));
    }
}
