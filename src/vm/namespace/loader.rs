//! Running acpbox in a root file system that lacks its libraries: they are
//! brought along and started through their own loader.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What acpbox needs to run in a foreign root.
#[derive(Debug)]
pub(super) struct Loader {
    /// The dynamic loader on the host.
    pub(super) program: PathBuf,
    /// Libraries on the host, canonical, by the name under which they are sought.
    pub(super) libraries: Vec<(String, PathBuf)>,
}

/// The loader of a binary; `None` when it is static and needs nothing.
pub(super) fn of(binary: &Path) -> std::io::Result<Option<Loader>> {
    let Some(program) = interpreter(binary)? else {
        return Ok(None);
    };
    let output = Command::new(&program).arg("--list").arg(binary).output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(format!(
            "{} cannot list its libraries: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    // Lines read `name => /path (0x…)`; loader and vdso have no arrow.
    let libraries = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(" => ")?;
            let path = rest.split(" (0x").next()?;
            Some((name.to_owned(), std::fs::canonicalize(path).ok()?))
        })
        .collect();
    Ok(Some(Loader {
        program: std::fs::canonicalize(program)?,
        libraries,
    }))
}

/// The `PT_INTERP` of a 64-bit little-endian ELF file (elf(5)).
fn interpreter(binary: &Path) -> std::io::Result<Option<PathBuf>> {
    const INTERPRETER: u32 = 3;
    const LONGEST: usize = 4096;
    let file = File::open(binary)?;
    let read = |offset: u64, length: usize| -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    };
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let header = read(0, 64)?;
    let table = number(&header[32..40]);
    let entry_size = number(&header[54..56]);
    for index in 0..number(&header[56..58]) {
        let entry = read(table + index * entry_size, 56)?;
        if number(&entry[0..4]) as u32 != INTERPRETER {
            continue;
        }
        let length = (number(&entry[32..40]) as usize).min(LONGEST);
        let bytes = read(number(&entry[8..16]), length)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Some(PathBuf::from(
            String::from_utf8_lossy(text).into_owned(),
        )));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_dynamic_binary_names_its_loader_and_libraries() {
        let own = std::env::current_exe().unwrap();
        let loader = of(&own).unwrap().expect("tests are linked dynamically");
        assert!(loader.program.is_file());
        assert!(
            loader
                .libraries
                .iter()
                .any(|(name, path)| name.starts_with("libc.") && path.is_file()),
            "{loader:?}"
        );
    }
}
