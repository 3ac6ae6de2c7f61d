"""Reports for build servers: JUnit, SARIF, Markdown."""
