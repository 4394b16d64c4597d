//! docs/kernels.md: what was last tested of each kernel.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    build,
    lab::{Cpu, Kernel},
};

/// A row of the table: a kernel on a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kernel: Kernel,
    pub(crate) cpu: Cpu,
    /// Version of Debian's package.
    pub(crate) version: String,
    /// Day of the test, as in 2026-11-27.
    pub(crate) date: String,
    /// The figures; none if vmentry refuses the kernel or the machine did not run.
    pub(crate) cells: Vec<String>,
    /// The reason for no figures; empty if there are some.
    pub(crate) note: String,
}

/// Mark of a figure that differs from its witness, and of a machine that did not run.
pub(crate) const FAILED: &str = "FAILED";

impl Row {
    /// Whether every figure equals its witness.
    pub(crate) fn is_good(&self) -> bool {
        !self.cells.is_empty() && !self.cells.iter().any(|cell| cell.contains(FAILED))
    }

    fn parse(line: &str) -> Option<Row> {
        let mut cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(|cell| cell.trim().to_owned());
        let kernel = cells.next()?.parse().ok()?;
        let cpu = match cells.next()?.as_str() {
            "intel" => Cpu::Intel,
            "amd" => Cpu::Amd,
            _ => return None,
        };
        let (version, date, note) = (cells.next()?, cells.next()?, cells.next()?);
        let cells = if note.is_empty() { cells.collect() } else { Vec::new() };
        Some(Row { kernel, cpu, version, date, note, cells })
    }

    fn line(&self, columns: usize) -> String {
        let Row { kernel, cpu, version, date, note, cells } = self;
        let mut line = format!("| {kernel} | {} | {version} | {date} | {} |", cpu.name(), in_a_cell(note));
        for column in 0..columns {
            line += &format!(" {} |", cells.get(column).map_or_else(String::new, |cell| in_a_cell(cell)));
        }
        line
    }
}

/// Returns a text as one line that does not end its cell, without paths of this machine.
fn in_a_cell(text: &str) -> String {
    let is_path = |word: &&str| word.starts_with('/') && word.matches('/').count() > 1;
    text.split_whitespace().filter(|word| !is_path(word)).collect::<Vec<_>>().join(" ").replace('|', "/")
}

/// The table's file.
pub(crate) fn path() -> PathBuf {
    build::root().join("docs/kernels.md")
}

/// Reads the rows of the table.
pub(crate) fn rows() -> Result<Vec<Row>> {
    let path = path();
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(parse(&text))
}

/// Replaces or adds a row, and writes the file.
pub(crate) fn write(row: Row, columns: &[&str]) -> Result<()> {
    let rows = replaced(rows()?, row);
    let path = path();
    fs::write(&path, page(&rows, columns)).with_context(|| format!("write {}", path.display()))
}

fn parse(text: &str) -> Vec<Row> {
    text.lines().filter_map(Row::parse).collect()
}

fn replaced(mut rows: Vec<Row>, row: Row) -> Vec<Row> {
    rows.retain(|other| (other.kernel, other.cpu) != (row.kernel, row.cpu));
    rows.push(row);
    rows.sort_by_key(|row| (row.kernel, row.cpu == Cpu::Amd));
    rows
}

const HEAD: &str = "\
# Kernels: which ones were tested, and every figure beside ftrace's

`cargo xtask kernels` wrote this table. It boots the newest kernel of each series that Debian's suites offer, with its
own kvm_intel or kvm_amd, in an emulated machine (Bochs for intel, QEMU for amd). Built-in guests make known exits
there, while ftrace counts the same events. In a cell, vmentry's number stands before its witness: `448 = 448`.
Emulated: counts are exact, and times, which say nothing about real hardware, are left out. A kernel without a row was
not tested: of superseded kernels, Debian removes the modules first.

* **entries**, **exit reasons**: entries, and different exit reasons; the witness is ftrace. The entries of each reason
  are equal, too, and equal to the guests' own counts.
* **timer exits**: by cause as the guests made them; the sum is ftrace's count of PREEMPTION_TIMER exits.
* **pin writes**: by the shadow copy: one per vCPU and vmcs02 under the soft policy, as the guests' number demands.
* **VMWRITE sites**: pin writes by kprobes on the VMWRITEs (`--verify-writes`), beside the shadow copy.
* **in-kernel**: entries of `--aggregate in-kernel`, beside records of the same guests; each series is equal, too.
* **calibrate**: CPUID exits of the calibration guest, beside ftrace; its parts add up to the whole.
* **companion**: pin writes under the hard policy with the companion module, by four counts of the same guests.
* n/a: the processor has no such thing. A failed figure says what differs.

";

fn page(rows: &[Row], columns: &[&str]) -> String {
    let mut text = HEAD.to_owned();
    let names = ["kernel", "CPU", "package", "tested", "note"].iter().chain(columns);
    text += &names.clone().fold("|".to_owned(), |line, name| line + &format!(" {name} |"));
    text += "\n";
    text += &names.fold("|".to_owned(), |line, _| line + "---|");
    text += "\n";
    for row in rows {
        text += &row.line(columns.len());
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kernel: &str, cpu: Cpu, cells: &[&str], note: &str) -> Row {
        Row {
            kernel: kernel.parse().unwrap(),
            cpu,
            version: "1".into(),
            date: "2026-11-27".into(),
            cells: cells.iter().map(|&cell| cell.into()).collect(),
            note: note.into(),
        }
    }

    #[test]
    fn rows_that_were_written_are_read() {
        let rows = [row("5.10", Cpu::Intel, &[], "refused"), row("6.12", Cpu::Amd, &["448 = 448", "n/a"], "")];
        let text = page(&rows, &["entries", "sites"]);
        assert_eq!(parse(&text), rows, "{text}");
        let odd = page(&[row("7.3", Cpu::Amd, &["FAILED: a | b\nc", "1"], "")], &["entries", "sites"]);
        assert_eq!(parse(&odd)[0].cells, ["FAILED: a / b c", "1"]);
    }

    #[test]
    fn a_note_names_no_path_of_the_machine_that_tested() {
        let line = row("7.1", Cpu::Intel, &[], "FAILED: find modules in /root/.cache/packages and I/O").line(0);
        assert!(line.ends_with("| FAILED: find modules in and I/O |"), "{line}");
    }

    #[test]
    fn the_requirements_list_the_kernels_whose_rows_are_good() {
        let rows = rows().unwrap();
        let mut good: Vec<_> = rows.iter().map(|row| row.kernel).collect();
        good.dedup();
        good.retain(|kernel| rows.iter().filter(|row| row.kernel == *kernel).all(Row::is_good));
        let names: Vec<_> = good.iter().map(Kernel::to_string).collect();
        let (last, others) = names.split_last().unwrap();
        let page = include_str!("../../../docs/requirements.md").split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = format!("Debian's {} and {last}.", others.join(", "));
        assert!(page.contains(&expected), "docs/requirements.md: {expected}");
    }

    #[test]
    fn a_new_result_replaces_that_of_the_same_kernel_and_processor() {
        let old = vec![row("6.18", Cpu::Intel, &["1"], ""), row("6.18", Cpu::Amd, &["2"], "")];
        let new = replaced(replaced(old, row("6.18", Cpu::Amd, &["3"], "")), row("6.2", Cpu::Amd, &["4"], ""));
        let order: Vec<_> = new.iter().map(|row| (row.kernel.series(), row.cells[0].as_str())).collect();
        assert_eq!(order, [("6.2".into(), "4"), ("6.18".into(), "1"), ("6.18".into(), "3")]);
    }

    #[test]
    fn a_row_is_good_if_it_has_figures_and_none_failed() {
        assert!(row("6.1", Cpu::Amd, &["1", "n/a"], "").is_good());
        assert!(!row("6.1", Cpu::Amd, &["1", "FAILED: 1 instead of 2"], "").is_good());
        assert!(!row("6.1", Cpu::Amd, &[], "refused: x").is_good());
    }
}
