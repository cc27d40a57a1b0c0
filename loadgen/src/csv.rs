//! Reads files of real views: CSV with the header `video_id,ts_ms,user_id,region,device`, gzip by the extension `.gz`.
//!
//! It checks what the wire format would refuse, so a bad file is named by line and column before anything is sent. It
//! does not sort: file order is sending order. Invariant: each [`FileView`] lends out exactly the fields of its line,
//! and equal video ids have equal indexes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use highwater_proto::limits::{FIELD_BYTES_MAX, VIDEO_ID_BYTES_MAX};
use highwater_proto::{TIMESTAMP_MS_MAX, View};

use crate::error::LoadError;
use crate::oracle::{VideoIds, VideoIndex};
use crate::records::{Record, RecordError, Records};

/// The header line every file starts with.
pub const HEADER: [&str; 5] = ["video_id", "ts_ms", "user_id", "region", "device"];

/// Most views in one file: rows are numbered by `u32`.
pub const FILE_VIEWS_MAX: usize = u32::MAX as usize;

/// One line's place in the shared text. 32 bytes; field lengths fit `u8` because the wire allows 255 bytes.
#[derive(Debug, Clone, Copy)]
struct RowEntry {
    text_start: u64,
    timestamp_ms: u64,
    video: VideoIndex,
    line: u32,
    user_len: u8,
    region_len: u8,
    device_len: u8,
}

/// All views of a file, in file order, held in memory.
#[derive(Debug, Default)]
pub struct ViewsFile {
    rows: Vec<RowEntry>,
    /// user, region and device of all rows, one after the other.
    text: String,
    video_ids: Vec<Box<str>>,
}

/// One view of a file with its video's index.
#[derive(Debug, Clone, Copy)]
pub struct FileView<'a> {
    /// The view as the file states it.
    pub view: View<'a>,
    /// The index of its video id among the file's distinct ids.
    pub video: VideoIndex,
    /// Its line, the header being line 1 (saturating at `u32::MAX`).
    pub line: u32,
}

impl ViewsFile {
    /// Reads and checks the whole file; `.gz` files are decompressed on the way.
    ///
    /// # Errors
    /// [`LoadError::Read`] for what the system refuses, [`LoadError::Content`] with line and column for bad content.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        let gzip = path.extension().is_some_and(|extension| extension == "gz");
        if gzip { Self::parse(path, MultiGzDecoder::new(BufReader::new(file))) } else { Self::parse(path, file) }
    }

    /// Parses CSV from any reader; `path` is only for error texts.
    ///
    /// # Errors
    /// As [`ViewsFile::open`].
    pub fn parse(path: &Path, reader: impl Read) -> Result<Self, LoadError> {
        let mut records = Records::new(reader);
        let mut parser = Parser { path, file: Self::default(), indexes: HashMap::new() };
        let mut header_seen = false;
        while let Some(record) = records.read().map_err(|error| parser.unreadable(error))? {
            if header_seen {
                parser.row(&record)?;
            } else {
                parser.header(&record)?;
                header_seen = true;
            }
        }
        if !header_seen {
            return Err(parser.content(1, "video_id", b"", "is no header; the file is empty"));
        }
        Ok(parser.file)
    }

    /// Number of views.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the file holds no view.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The view at `index` in file order.
    ///
    /// # Panics
    /// If `index >= len()`.
    #[must_use]
    pub fn view(&self, index: usize) -> FileView<'_> {
        let row = &self.rows[index];
        let user_start = row.text_start as usize;
        let region_start = user_start + usize::from(row.user_len);
        let device_start = region_start + usize::from(row.region_len);
        let device_end = device_start + usize::from(row.device_len);
        FileView {
            view: View {
                video_id: &self.video_ids[row.video.0 as usize],
                timestamp_ms: row.timestamp_ms,
                user_id: &self.text[user_start..region_start],
                region: &self.text[region_start..device_start],
                device: &self.text[device_start..device_end],
            },
            video: row.video,
            line: row.line,
        }
    }

    /// The smallest and the largest time in the file, or `None` if it is empty.
    #[must_use]
    pub fn time_range_ms(&self) -> Option<(u64, u64)> {
        let first = self.rows.iter().map(|row| row.timestamp_ms).min()?;
        let last = self.rows.iter().map(|row| row.timestamp_ms).max()?;
        Some((first, last))
    }

    /// The file's distinct video ids, by index.
    #[must_use]
    pub fn video_ids(&self) -> &[Box<str>] {
        &self.video_ids
    }
}

impl VideoIds for ViewsFile {
    fn video_count(&self) -> u32 {
        u32::try_from(self.video_ids.len()).unwrap_or(u32::MAX)
    }

    fn write_id(&self, video: VideoIndex, out: &mut String) {
        out.push_str(&self.video_ids[video.0 as usize]);
    }
}

/// The file as read so far, with what only reading needs.
struct Parser<'p> {
    path: &'p Path,
    file: ViewsFile,
    indexes: HashMap<Box<str>, VideoIndex>,
}

impl Parser<'_> {
    fn header(&self, record: &Record<'_>) -> Result<(), LoadError> {
        for (index, name) in HEADER.iter().enumerate() {
            let found = record.get(index).unwrap_or_default();
            // A byte order mark before the first name is what spreadsheet programs leave behind.
            let found = found.strip_prefix(b"\xef\xbb\xbf").unwrap_or(found);
            if found != name.as_bytes() {
                let reason =
                    format!("is not the header's column {}; the first line must be {}", index + 1, HEADER.join(","));
                return Err(self.content(record.line, name, found, &reason));
            }
        }
        self.field_count(record)
    }

    fn field_count(&self, record: &Record<'_>) -> Result<(), LoadError> {
        if record.len() == HEADER.len() {
            return Ok(());
        }
        let reason =
            format!("ends a line of {} fields; {} are needed: {}", record.len(), HEADER.len(), HEADER.join(","));
        let last = record.get(record.len().wrapping_sub(1)).unwrap_or_default();
        let column = HEADER[record.len().min(HEADER.len()).saturating_sub(1)];
        Err(self.content(record.line, column, last, &reason))
    }

    fn row(&mut self, record: &Record<'_>) -> Result<(), LoadError> {
        self.field_count(record)?;
        let line = record.line;
        let field = |index| record.get(index).unwrap_or_default();
        if self.file.rows.len() >= FILE_VIEWS_MAX {
            let reason = format!("is beyond the {FILE_VIEWS_MAX} views one file may hold; split it");
            return Err(self.content(line, "video_id", field(0), &reason));
        }
        let video_id = self.field(line, "video_id", field(0), VIDEO_ID_BYTES_MAX)?;
        if video_id.is_empty() {
            return Err(self.content(line, "video_id", b"", "is empty; 1 to 255 bytes are needed"));
        }
        let timestamp_ms = self.timestamp(line, field(1))?;
        let user = self.field(line, "user_id", field(2), FIELD_BYTES_MAX)?;
        let region = self.field(line, "region", field(3), FIELD_BYTES_MAX)?;
        let device = self.field(line, "device", field(4), FIELD_BYTES_MAX)?;
        let video = match self.indexes.get(video_id) {
            Some(video) => *video,
            None => self.intern(video_id),
        };
        let file = &mut self.file;
        file.rows.push(RowEntry {
            text_start: file.text.len() as u64,
            timestamp_ms,
            video,
            line: u32::try_from(line).unwrap_or(u32::MAX),
            user_len: user.len() as u8,
            region_len: region.len() as u8,
            device_len: device.len() as u8,
        });
        file.text.push_str(user);
        file.text.push_str(region);
        file.text.push_str(device);
        Ok(())
    }

    fn intern(&mut self, video_id: &str) -> VideoIndex {
        // Rows are limited to u32, so distinct ids are too.
        let video = VideoIndex(self.file.video_ids.len() as u32);
        self.file.video_ids.push(video_id.into());
        self.indexes.insert(video_id.into(), video);
        video
    }

    fn field<'r>(
        &self,
        line: u64,
        column: &'static str,
        value: &'r [u8],
        bytes_max: usize,
    ) -> Result<&'r str, LoadError> {
        if value.len() > bytes_max {
            let reason = format!("has {} bytes; at most {bytes_max} are allowed", value.len());
            return Err(self.content(line, column, value, &reason));
        }
        std::str::from_utf8(value).map_err(|error| {
            let reason = format!("is not UTF-8 after byte {}", error.valid_up_to());
            self.content(line, column, value, &reason)
        })
    }

    fn timestamp(&self, line: u64, value: &[u8]) -> Result<u64, LoadError> {
        let parsed = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|timestamp_ms| *timestamp_ms <= TIMESTAMP_MS_MAX);
        parsed.ok_or_else(|| {
            let reason =
                format!("is no time; whole milliseconds UTC since 1970 are needed, at most {TIMESTAMP_MS_MAX}");
            self.content(line, "ts_ms", value, &reason)
        })
    }

    fn content(&self, line: u64, column: &'static str, value: &[u8], reason: &str) -> LoadError {
        let shown = &value[..value.len().min(60)];
        LoadError::Content {
            path: self.path.to_owned(),
            line,
            column,
            value: String::from_utf8_lossy(shown).into_owned(),
            reason: reason.to_owned(),
        }
    }

    fn unreadable(&self, error: RecordError) -> LoadError {
        match error {
            RecordError::Read(source) => LoadError::Read { path: self.path.to_owned(), source },
            RecordError::Content(line, begin, reason) => self.content(line, HEADER[0], &begin, &reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const SMALL: &str = "video_id,ts_ms,user_id,region,device\n\
        a,1000,u1,r1,d1\n\
        \"quoted, \"\"id\"\"\",2000,,,\n\
        a,1500,ü,\"\",phone\n";

    fn parse(text: &[u8]) -> Result<ViewsFile, LoadError> {
        ViewsFile::parse(Path::new("views.csv"), text)
    }

    #[test]
    fn reads_rows_in_file_order_with_quotes_and_empty_fields() {
        let file = parse(SMALL.as_bytes()).unwrap();
        assert_eq!(file.len(), 3);
        assert_eq!(file.video_ids().len(), 2);
        assert_eq!(file.time_range_ms(), Some((1000, 2000)));
        let second = file.view(1);
        assert_eq!(second.view.video_id, "quoted, \"id\"");
        assert_eq!((second.view.user_id, second.view.region, second.view.device), ("", "", ""));
        let third = file.view(2);
        assert_eq!(third.view.user_id, "ü");
        assert_eq!(third.view.device, "phone");
        assert_eq!(third.video, file.view(0).video);
        assert_eq!(third.line, 4);
    }

    #[test]
    fn reads_gzip_by_extension() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("views.csv.gz");
        let mut encoder = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        encoder.write_all(SMALL.as_bytes()).unwrap();
        encoder.finish().unwrap();
        assert_eq!(ViewsFile::open(&path).unwrap().len(), 3);
    }

    fn refusal(text: &[u8]) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn bad_content_is_named_by_line_column_and_value() {
        let header = "video_id,ts_ms,user_id,region,device\n";
        let text = refusal(format!("{header}a,1,u,r,d\nb,1x,u,r,d\n").as_bytes());
        assert!(text.contains("line 3") && text.contains("ts_ms") && text.contains("1x"), "{text}");
        let text = refusal(format!("{header},1,u,r,d\n").as_bytes());
        assert!(text.contains("line 2") && text.contains("video_id") && text.contains("empty"), "{text}");
        let text = refusal(format!("{header}a,1,u,r\n").as_bytes());
        assert!(text.contains("line 2") && text.contains("4 fields"), "{text}");
        let text = refusal(format!("{header}a,1,u,r,{}\n", "x".repeat(256)).as_bytes());
        assert!(text.contains("device") && text.contains("256 bytes"), "{text}");
        let text = refusal(format!("{header}a,-1,u,r,d\n").as_bytes());
        assert!(text.contains("ts_ms"), "{text}");
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(b"a,1,u\xff,r,d\n");
        let text = refusal(&bytes);
        assert!(text.contains("user_id") && text.contains("UTF-8"), "{text}");
    }

    #[test]
    fn a_wrong_or_missing_header_is_refused() {
        let text = refusal(b"id,ts,user,region,device\na,1,u,r,d\n");
        assert!(text.contains("line 1") && text.contains("video_id,ts_ms"), "{text}");
        let text = refusal(b"");
        assert!(text.contains("empty"), "{text}");
        let text = refusal(b"video_id,ts_ms,user_id,region,device,extra\n");
        assert!(text.contains("6 fields"), "{text}");
    }

    #[test]
    fn a_missing_file_names_its_path() {
        let text = ViewsFile::open(Path::new("/nowhere/views.csv")).unwrap_err().to_string();
        assert!(text.contains("/nowhere/views.csv"), "{text}");
    }
}
