-- From schema version 72 to 87 (July 2026): builds belong to a jobset by its id alone. No upgrade drops the tables of
-- releases. Names are facts about Hydra.
update schemaversion set version = 87;

create table evaluationerrors (id serial primary key, errormsg text, errortime integer);
alter table jobsetevals
    add column evaluationerror_id integer references evaluationerrors(id) on delete set null,
    drop column errormsg, drop column errortime;
alter table jobsetevalinputs add column shortrevlength smallint;
alter table projects add column enable_dynamic_run_command boolean not null default false;
alter table jobsets add column enable_dynamic_run_command boolean not null default false,
    add check (type in (0, 1)), add check ((type = 0) = (flake is null)), add check (flake is null or nixexprinput is null and nixexprpath is null);
alter table builds drop column project, drop column jobset;
alter table buildoutputs alter column path drop not null;
alter table buildstepoutputs alter column path drop not null;
alter table buildsteps
    alter column drvpath set not null, add column resolveddrvpath text,
    add check ((status = 13) = (resolveddrvpath is not null));
