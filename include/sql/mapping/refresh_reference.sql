-- Guarantees: mapping.* holds both systems' reference data as this run's whole extracts gave them; what an extract no
-- longer names is marked gone; every organization and offer has a mapping row, excluded until somebody approves it.
-- The log that people read says what is new, renamed, gone, deleted or inactive, and back again.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE.

-- Two runs at once would both find something new, and the second would stumble over the first one's row.
select pg_advisory_xact_lock(hashtext('mapping.refresh'));

create temporary table reference_before on commit drop as select * from mapping.reference;

merge into mapping.organization as known
using (
    select staged.* from staging.organization as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.organization_id = seen.organization_id
when matched and (known.name, known.erp_id, known.status, known.vat_number, known.country, known.is_gone)
    is distinct from (seen.name, seen.erp_id, seen.status, seen.vat_number, seen.country, false) then
    update set name = seen.name, erp_id = seen.erp_id, status = seen.status, vat_number = seen.vat_number,
        country = seen.country, is_gone = false
when not matched then
    insert (organization_id, name, erp_id, status, vat_number, country)
    values (seen.organization_id, seen.name, seen.erp_id, seen.status, seen.vat_number, seen.country);

update mapping.organization as known set is_gone = true
where
    not known.is_gone
    and exists (select from staging.extract where run_id = audit.current_run_id() and feed = 'organizations')
    and not exists (
        select from staging.organization as staged join staging.extract as feed using (extract_id)
        where feed.run_id = audit.current_run_id() and staged.organization_id = known.organization_id
    );

merge into mapping.contract as known
using (
    select staged.* from staging.contract as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.contract_id = seen.contract_id
when matched and (known.contract_number, known.organization_id, known.contract_type, known.currency,
        known.billing_cycle_day, known.is_gone)
    is distinct from (seen.contract_number, seen.consumer_organization_id, seen.contract_type, seen.currency,
        seen.billing_cycle_day, false) then
    update set contract_number = seen.contract_number, organization_id = seen.consumer_organization_id,
        contract_type = seen.contract_type, currency = seen.currency, billing_cycle_day = seen.billing_cycle_day,
        is_gone = false
when not matched then
    insert (contract_id, contract_number, organization_id, contract_type, currency, billing_cycle_day)
    values (seen.contract_id, seen.contract_number, seen.consumer_organization_id, seen.contract_type, seen.currency,
        seen.billing_cycle_day);

update mapping.contract as known set is_gone = true
where
    not known.is_gone
    and exists (select from staging.extract where run_id = audit.current_run_id() and feed = 'contracts')
    and not exists (
        select from staging.contract as staged join staging.extract as feed using (extract_id)
        where feed.run_id = audit.current_run_id() and staged.contract_id = known.contract_id
    );

merge into mapping.subscription as known
using (
    select staged.* from staging.subscription as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.subscription_id = seen.subscription_id
when matched and (known.organization_id, known.contract_id, known.offer_id, known.name, known.status, known.quantity,
        known.billing_frequency, known.start_date, known.end_date, known.is_gone)
    is distinct from (seen.organization_id, seen.contract_id, seen.offer_id, seen.name, seen.status, seen.quantity,
        seen.billing_frequency, seen.start_date, seen.end_date, false) then
    update set organization_id = seen.organization_id, contract_id = seen.contract_id, offer_id = seen.offer_id,
        name = seen.name, status = seen.status, quantity = seen.quantity, billing_frequency = seen.billing_frequency,
        start_date = seen.start_date, end_date = seen.end_date, is_gone = false
when not matched then
    insert (subscription_id, organization_id, contract_id, offer_id, name, status, quantity, billing_frequency,
        start_date, end_date)
    values (seen.subscription_id, seen.organization_id, seen.contract_id, seen.offer_id, seen.name, seen.status,
        seen.quantity, seen.billing_frequency, seen.start_date, seen.end_date);

update mapping.subscription as known set is_gone = true
where
    not known.is_gone
    and exists (select from staging.extract where run_id = audit.current_run_id() and feed = 'subscriptions')
    and not exists (
        select from staging.subscription as staged join staging.extract as feed using (extract_id)
        where feed.run_id = audit.current_run_id() and staged.subscription_id = known.subscription_id
    );

merge into mapping.company as known
using (
    select staged.* from staging.company as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.company_id = seen.company_id
when matched and (known.identifier, known.name, known.status, known.is_deleted, known.tax_identifier, known.currency, known.default_contact_id, known.is_gone)
    is distinct from (seen.identifier, seen.name, seen.status, seen.is_deleted, seen.tax_identifier, seen.currency, seen.default_contact_id, false) then
    update set identifier = seen.identifier, name = seen.name, status = seen.status, is_deleted = seen.is_deleted,
        tax_identifier = seen.tax_identifier, currency = seen.currency, default_contact_id = seen.default_contact_id,
        is_gone = false
when not matched then
    insert (company_id, identifier, name, status, is_deleted, tax_identifier, currency, default_contact_id)
    values (seen.company_id, seen.identifier, seen.name, seen.status, seen.is_deleted, seen.tax_identifier,
        seen.currency, seen.default_contact_id);

update mapping.company as known set is_gone = true
where
    not known.is_gone
    and exists (select from staging.extract where run_id = audit.current_run_id() and feed = 'companies')
    and not exists (
        select from staging.company as staged join staging.extract as feed using (extract_id)
        where feed.run_id = audit.current_run_id() and staged.company_id = known.company_id
    );

merge into mapping.product as known
using (
    select staged.* from staging.product as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.product_id = seen.product_id
when matched and (known.identifier, known.description, known.vendor_sku, known.product_class, known.is_inactive, known.is_gone)
    is distinct from (seen.identifier, seen.description, seen.vendor_sku, seen.product_class, seen.is_inactive, false) then
    update set identifier = seen.identifier, description = seen.description, vendor_sku = seen.vendor_sku,
        product_class = seen.product_class, is_inactive = seen.is_inactive, is_gone = false
when not matched then
    insert (product_id, identifier, description, vendor_sku, product_class, is_inactive)
    values (seen.product_id, seen.identifier, seen.description, seen.vendor_sku, seen.product_class, seen.is_inactive);

update mapping.product as known set is_gone = true
where
    not known.is_gone
    and exists (select from staging.extract where run_id = audit.current_run_id() and feed = 'products')
    and not exists (
        select from staging.product as staged join staging.extract as feed using (extract_id)
        where feed.run_id = audit.current_run_id() and staged.product_id = known.product_id
    );

merge into mapping.agreement_type as known
using (
    select staged.* from staging.agreement_type as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.agreement_type_id = seen.agreement_type_id
when matched and (known.name, known.is_inactive, known.billing_cycle_id, known.invoicing_cycle, known.is_gone)
    is distinct from (seen.name, seen.is_inactive, seen.billing_cycle_id, seen.invoicing_cycle, false) then
    update set name = seen.name, is_inactive = seen.is_inactive, billing_cycle_id = seen.billing_cycle_id,
        invoicing_cycle = seen.invoicing_cycle, is_gone = false
when not matched then
    insert (agreement_type_id, name, is_inactive, billing_cycle_id, invoicing_cycle)
    values (seen.agreement_type_id, seen.name, seen.is_inactive, seen.billing_cycle_id, seen.invoicing_cycle);

update mapping.agreement_type as known set is_gone = true
where
    not known.is_gone
    and exists (select from staging.extract where run_id = audit.current_run_id() and feed = 'agreement_types')
    and not exists (
        select from staging.agreement_type as staged join staging.extract as feed using (extract_id)
        where feed.run_id = audit.current_run_id() and staged.agreement_type_id = known.agreement_type_id
    );

merge into mapping.billing_cycle as known
using (
    select staged.* from staging.billing_cycle as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.billing_cycle_id = seen.billing_cycle_id
when matched and (known.name, known.billing_option) is distinct from (seen.name, seen.billing_option) then
    update set name = seen.name, billing_option = seen.billing_option
when not matched then
    insert (billing_cycle_id, name, billing_option) values (seen.billing_cycle_id, seen.name, seen.billing_option);

merge into mapping.agreement as known
using (
    select staged.* from staging.agreement as staged
    join staging.extract as feed using (extract_id) where feed.run_id = audit.current_run_id()
) as seen on known.agreement_id = seen.agreement_id
when matched and (known.name, known.agreement_type_id, known.company_id, known.agreement_status, known.is_cancelled,
        known.billing_cycle_id, known.invoicing_cycle, known.currency, known.prorates, known.start_date, known.end_date,
        known.bill_start_date, known.next_invoice_date, known.marker, known.is_gone)
    is distinct from (seen.name, seen.agreement_type_id, seen.company_id, seen.agreement_status, seen.is_cancelled,
        seen.billing_cycle_id, seen.invoicing_cycle, seen.currency, seen.prorates, seen.start_date, seen.end_date,
        seen.bill_start_date, seen.next_invoice_date, seen.marker, false) then
    update set name = seen.name, agreement_type_id = seen.agreement_type_id, company_id = seen.company_id,
        agreement_status = seen.agreement_status, is_cancelled = seen.is_cancelled,
        billing_cycle_id = seen.billing_cycle_id, invoicing_cycle = seen.invoicing_cycle, currency = seen.currency,
        prorates = seen.prorates, start_date = seen.start_date, end_date = seen.end_date,
        bill_start_date = seen.bill_start_date, next_invoice_date = seen.next_invoice_date, marker = seen.marker,
        is_gone = false
when not matched then
    insert (agreement_id, name, agreement_type_id, company_id, agreement_status, is_cancelled, billing_cycle_id,
        invoicing_cycle, currency, prorates, start_date, end_date, bill_start_date, next_invoice_date, marker)
    values (seen.agreement_id, seen.name, seen.agreement_type_id, seen.company_id, seen.agreement_status,
        seen.is_cancelled, seen.billing_cycle_id, seen.invoicing_cycle, seen.currency, seen.prorates, seen.start_date,
        seen.end_date, seen.bill_start_date, seen.next_invoice_date, seen.marker);

update mapping.agreement as known set is_gone = true
where
    not known.is_gone
    and exists (select from staging.extract where run_id = audit.current_run_id() and feed = 'agreements')
    and not exists (
        select from staging.agreement as staged join staging.extract as feed using (extract_id)
        where feed.run_id = audit.current_run_id() and staged.agreement_id = known.agreement_id
    );

insert into mapping.organization_mapping (organization_id)
select organization_id from mapping.organization as known
where not exists (select from mapping.organization_mapping as mapped where mapped.organization_id = known.organization_id);

insert into mapping.contract_mapping (contract_id)
select contract_id from mapping.contract as known
where not exists (select from mapping.contract_mapping as mapped where mapped.contract_id = known.contract_id);

select mapping.log_reference_changes();
