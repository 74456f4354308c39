//! `cargo xtask pg`: keeps a throw-away PostgreSQL cluster, for tests and for trying things out.

use crate::cluster::Cluster;
use anyhow::Result;

/// What tells the tests where the server is.
pub(crate) const VARIABLE: &str = "ROPEWAY_TEST_POSTGRES";

/// Starts a cluster, tells where it is, and keeps it until a line or the end of the input comes in.
pub(crate) fn run() -> Result<bool> {
    let cluster = Cluster::start()?;
    println!("pg: {VARIABLE}={}", cluster.url);
    println!("pg: press Enter to stop it; nothing of it stays");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::cluster::installed;
    use std::fs;

    #[test]
    fn the_newest_version_with_a_server_is_taken() {
        let root = std::env::temp_dir().join(format!("ropeway-pg-versions-{}", std::process::id()));
        for version in ["9", "15", "16"] {
            fs::create_dir_all(root.join(version).join("bin")).unwrap();
        }
        for version in ["9", "15"] {
            fs::write(root.join(version).join("bin/initdb"), "").unwrap();
        }
        assert_eq!(installed(&root), Some(root.join("15/bin")));
        assert_eq!(installed(&root.join("nowhere")), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
