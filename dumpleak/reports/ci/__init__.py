"""Growth and what a gate says of it, for build servers: JUnit, SARIF."""
