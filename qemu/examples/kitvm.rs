//! Makes the kit: `cargo run -p sfnic-qemu --example kitvm`.
fn main() -> anyhow::Result<()> {
    let kit = sfnic_qemu::Kit::ensure(&Default::default(), "7.2")?;
    println!("{kit:#?}");
    Ok(())
}
