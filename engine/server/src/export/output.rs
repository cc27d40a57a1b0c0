//! Where an export goes: a file that is there only once it is whole, or stdout.
//!
//! Not what is written. Invariant: until the end nothing has the name that was asked for but what had it before; what
//! fails or is stopped leaves no file behind.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// What stands for stdout.
pub(crate) const STDOUT: &str = "-";

const BUFFER_BYTES: usize = 1 << 20;

/// As any program makes files; the user's mask takes rights away.
const FILE_MODE: u32 = 0o666;

/// An export's file, being written.
pub(crate) struct Output {
    to: Target,
    bytes: u64,
}

enum Target {
    Stdout(BufWriter<io::Stdout>),
    File { writer: BufWriter<NamedTempFile>, path: PathBuf, force: bool },
}

impl Output {
    /// Makes a file beside `path`, or takes stdout for `-`.
    ///
    /// # Errors
    /// When there is something of that name that must not be replaced, or no file can be made there.
    pub(crate) fn create(path: &Path, force: bool) -> Result<Self> {
        if path.as_os_str() == STDOUT {
            return Ok(Self { to: Target::Stdout(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())), bytes: 0 });
        }
        let shown = path.display();
        let Some(name) = path.file_name() else {
            bail!("--out={shown} names no file: name one, such as {}", path.join("views.parquet").display());
        };
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                bail!("--out={shown} is a directory: name a file, such as {}", path.join("views.parquet").display())
            }
            Ok(found) if !found.is_file() => {
                bail!("--out={shown} is no file: name another, or give --out=- and redirect stdout")
            }
            Ok(_) if !force => bail!("--out={shown} exists: name another file, or replace it by --force"),
            _ => {}
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut prefix = OsString::from(name);
        prefix.push(".");
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".tmp")
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(folder)
            .with_context(|| format!("--out={shown}: no file can be made in {}", folder.display()))?;
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { to: Target::File { writer, path: path.to_owned(), force }, bytes: 0 })
    }

    /// Makes what was written durable and gives it its name; returns its length in bytes.
    ///
    /// # Errors
    /// When it cannot be written, or something of that name has come in the meantime.
    pub(crate) fn finish(self) -> Result<u64> {
        match self.to {
            Target::Stdout(mut writer) => writer.flush()?,
            Target::File { writer, path, force } => {
                let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                if force {
                    file.persist(&path)?;
                } else {
                    file.persist_noclobber(&path)?;
                }
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                File::open(folder)?.sync_all()?;
            }
        }
        Ok(self.bytes)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            Target::Stdout(writer) => writer.write(bytes)?,
            Target::File { writer, .. } => writer.write(bytes)?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            Target::Stdout(writer) => writer.flush(),
            Target::File { writer, .. } => writer.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_only_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let mut output = Output::create(&path, false).unwrap();
        output.write_all(b"one").unwrap();
        assert!(!path.exists());
        assert_eq!(output.finish().unwrap(), 3);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let mut output = Output::create(&path, true).unwrap();
        output.write_all(b"two").unwrap();
        drop(output);
        assert_eq!(names(folder.path()), ["a.csv"], "what is given up leaves nothing");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn what_is_there_is_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let late = Output::create(&path, false).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(Output::create(&path, false).err().unwrap().to_string().contains("--force"));
        assert!(late.finish().is_err(), "not even if it came later");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        Output::create(&path, true).unwrap().finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        for (path, words) in [(folder.path(), "is a directory"), (Path::new("/dev/null"), "is no file")] {
            let error = Output::create(path, true).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(names(folder.path()), ["a.csv"]);
    }
}
