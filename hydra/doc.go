// Package hydra knows the database of Hydra, the continuous build system of
// Nix: what a release consists of, the rows that describe it, how they get into
// another Hydra, and dumps of the whole.
//
// A release is a named set of builds of a project. Until 2020 Hydra had tables
// for them (releases, releasemembers), and databases that are older still do.
// Since then a release is what a Selection says: the builds of an evaluation, or
// of a jobset's latest one, some of them by the names of their jobs, builds by
// their ids, or an aggregate with its constituents. Only builds that succeeded
// belong to it, with all their outputs.
//
// A Snapshot reads everything in one transaction, which only reads: a role that
// may do no more than SELECT is enough. Hydra's tables have changed over the
// years (schema versions 28 of 2014 to 87 of 2026 are tested). Which columns
// there are is asked, not concluded from the version.
//
// Restore puts the rows of a release into a Hydra of any of these versions, and
// makes sure that it does nothing with them but show them.
//
// Dump and Load take a whole database out and in, through pg_dump and psql: a
// dump is SQL that needs neither narvault nor the same version of PostgreSQL. A
// dump, unlike the rows of a release, holds the hashes of passwords too.
//
// What is in a store path, and what becomes of it, is the business of others.
package hydra
