//! Memory where a log's driver had some: the pages that its commands name.

use sfnic_device_model::cmd::fields::{Side, bits, walk};
use sfnic_device_model::dma::Memory;
use vm_memory::GuestAddress;

use super::Trace;

/// Most bytes that are mapped for one address.
const MAX_PAGE: u64 = 64 << 20;
/// Most bytes of a card; they cost nothing until they are touched.
const MAX_TOTAL: u64 = 16 << 30;
/// Most pieces of a card.
const MAX_PIECES: usize = 16_000;

/// The memory of each card.
pub(super) fn maps(trace: &Trace, cards: usize) -> Vec<Memory> {
    let mut pages: Vec<Vec<(u64, u64)>> = vec![vec![]; cards];
    for (e, c) in trace.commands() {
        let Some(pages) = pages.get_mut(usize::from(e.card)) else { continue };
        let input = c.input();
        // A queue's page size stands before its pages.
        let mut log = 0;
        let mut named = vec![];
        walk(&input, Side::Input, &input, |leaf, block| match leaf.name {
            "log_page_size" | "log_wq_pg_sz" => log = bits(block, leaf.bit, leaf.width),
            "pas" => named.push((bits(block, leaf.bit, leaf.width), true)),
            "dbr_addr" => named.push((bits(block, leaf.bit, leaf.width), false)),
            _ => {}
        });
        let size = 4096u64.checked_shl(log as u32).unwrap_or(MAX_PAGE).clamp(4096, MAX_PAGE);
        for (at, page) in named.into_iter().filter(|(at, _)| *at != 0) {
            let start = at & !0xfff;
            let size = if page { size } else { 4096 };
            if let Some(end) = start.checked_add(size).filter(|e| *e < 1 << 63) {
                pages.push((start, end));
            }
        }
    }
    pages.into_iter().map(one).collect()
}

fn one(mut pages: Vec<(u64, u64)>) -> Memory {
    pages.sort_unstable();
    let mut merged: Vec<(u64, u64)> = vec![];
    for (start, end) in pages {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let mut total = 0;
    let ranges: Vec<(GuestAddress, usize)> = merged
        .into_iter()
        .take(MAX_PIECES)
        .take_while(|(start, end)| {
            total += end - start;
            total <= MAX_TOTAL
        })
        .map(|(start, end)| (GuestAddress(start), (end - start) as usize))
        .collect();
    // Without memory a queue is in error, which hardly any answer shows.
    Memory::from_ranges(&ranges).unwrap_or_default()
}
