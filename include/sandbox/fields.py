"""Which fields a ConnectWise record has and of which type: for validation, `conditions` and `fields`.

One word per field, `name:type`. Types: int, number, flag, date, ref (an object with an id), list, object,
text, text(MAXIMUM LENGTH), enum(ALLOWED|VALUES). Source: ConnectWise's public model of version 2025.8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPTION = "Billable|DoNotBill|NoCharge|NoDefault"
_STATUS = "Active|Cancelled|Expired|Inactive"
_CYCLE = (
    "Contract2Weeks|Contract4Weeks|ContractYear|CalendarMonth|CalendarQuarter|CalendarWeek|ContractQuarter|CalendarYear"
)


@dataclass(frozen=True)
class Field:
    """One field: its exact spelling, its type, and the limit the type brings along."""

    name: str
    type: str
    maximum: int | None = None
    allowed: tuple[str, ...] = ()


def _model(words: str) -> dict[str, Field]:
    """Fields by lower-case name, since ConnectWise does not mind the case of names in a query."""
    model = {}
    for word in words.split():
        name, kind = word.split(":")
        match = re.fullmatch(r"(text|enum)\((.*)\)", kind)
        if match is None:
            field = Field(name, kind)
        elif match.group(1) == "text":
            field = Field(name, "text", maximum=int(match.group(2)))
        else:
            field = Field(name, "enum", allowed=tuple(match.group(2).split("|")))
        model[name.lower()] = field
    return model


ADDITION = _model(f"""
    id:int product:ref quantity:number lessIncluded:number unitPrice:number unitCost:number
    billCustomer:enum(Billable|DoNotBill|NoCharge) effectiveDate:date cancelledDate:date taxableFlag:flag
    serialNumber:text(50) invoiceDescription:text(6000) purchaseItemFlag:flag specialOrderFlag:flag
    agreementId:int description:text billedQuantity:number uom:text extPrice:number extCost:number
    sequenceNumber:number margin:number prorateCost:number proratePrice:number extendedProrateCost:number
    extendedProratePrice:number prorateCurrentPeriodFlag:flag opportunity:ref agreementStatus:enum({_STATUS})
    invoiceGrouping:ref _info:object customFields:list additionStatus:text""")

AGREEMENT = _model(f"""
    id:int name:text(100) type:ref company:ref contact:ref site:ref subContractCompany:ref subContractContact:ref
    parentAgreement:ref customerPO:text(50) location:ref department:ref restrictLocationFlag:flag
    restrictDepartmentFlag:flag startDate:date endDate:date noEndingDateFlag:flag opportunity:ref cancelledFlag:flag
    dateCancelled:date reasonCancelled:text(100) sla:ref workOrder:text(20) internalNotes:text
    applicationUnits:enum(Amount|Hours|Incidents) applicationLimit:number applicationCycle:enum({_CYCLE})
    applicationUnlimitedFlag:flag oneTimeFlag:flag coverAgreementTime:flag coverAgreementProduct:flag
    coverAgreementExpense:flag coverSalesTax:flag carryOverUnused:flag allowOverruns:flag expiredDays:int limit:int
    expireWhenZero:flag chargeToFirm:flag employeeCompRate:enum(Actual|Hourly)
    employeeCompNotExceed:enum(Billing|Amount|Percent) compHourlyRate:number compLimitAmount:number
    billingCycle:ref billOneTimeFlag:flag billingTerms:ref invoicingCycle:enum(ContractYear|CalendarYear)
    billToCompany:ref billToContact:ref billToSite:ref billAmount:number taxable:flag prorateFirstBill:number
    billStartDate:date taxCode:ref restrictDownPayment:flag prorateFlag:flag invoiceProratedAdditionsFlag:flag
    invoiceDescription:text topComment:flag bottomComment:flag workRole:ref workType:ref projectType:ref
    invoiceTemplate:ref billTime:enum({_OPTION}) billExpenses:enum({_OPTION}) billProducts:enum({_OPTION})
    billableTimeInvoice:flag billableExpenseInvoice:flag billableProductInvoice:flag currency:ref
    periodType:enum(Current|Future|Both|Undefined) autoInvoiceFlag:flag nextInvoiceDate:date companyLocation:ref
    shipToCompany:ref shipToContact:ref shipToSite:ref agreementStatus:enum({_STATUS}) _info:object customFields:list
    """)

AGREEMENT_TYPE = _model(f"""
    id:int name:text(50) prefixSuffixOption:enum(Prefix|Suffix) defaultFlag:flag inactiveFlag:flag prePaymentFlag:flag
    location:ref department:ref applicationUnits:enum(Amount|Hours|Incidents) applicationLimit:number
    applicationCycle:enum({_CYCLE}) applicationUnlimitedFlag:flag oneTimeFlag:flag
    employeeCompRate:enum(Actual|Hourly) employeeCompNotExceed:enum(Billing|Amount|Percent) billingCycle:ref
    billOneTimeFlag:flag billingTerms:ref invoicingCycle:enum(ContractYear|CalendarYear) billAmount:number
    taxableFlag:flag invoiceDescription:text(4000) billTime:enum({_OPTION}) billExpenses:enum({_OPTION})
    billProducts:enum({_OPTION}) integrationXRef:text(50) prorateFlag:flag autoInvoiceFlag:flag
    invoiceProratedAdditionsFlag:flag _info:object""")

COMPANY = _model("""
    id:int identifier:text(30) name:text(50) status:ref addressLine1:text(50) city:text(50) zip:text(12) country:ref
    phoneNumber:text(30) website:text(255) territory:ref accountNumber:text defaultContact:ref dateAcquired:date
    parentCompany:ref leadFlag:flag vendorIdentifier:text taxIdentifier:text billingTerms:ref billToCompany:ref
    deletedFlag:flag dateDeleted:date deletedBy:text currency:ref isVendorFlag:flag types:list site:ref _info:object
    customFields:list""")

PRODUCT = _model(f"""
    id:int identifier:text(75) description:text(60) inactiveFlag:flag subcategory:ref type:ref
    productClass:enum(Agreement|Bundle|Inventory|NonInventory|Service) serializedFlag:flag unitOfMeasure:ref
    price:number cost:number priceAttribute:enum(FixedFee|NotToExceed|OverrideRate|TimeAndMaterials) taxableFlag:flag
    customerDescription:text(6000) manufacturerPartNumber:text(50) vendor:ref vendorSku:text(50) notes:text
    integrationXRef:text(50) recurringFlag:flag recurringRevenue:number recurringCost:number recurringOneTimeFlag:flag
    recurringBillCycle:ref recurringCycleType:enum(ContractYear|CalendarYear) category:ref
    billableOption:enum({_OPTION}) agreementType:ref _info:object customFields:list""")

BILLING_CYCLE = _model("""
    id:int identifier:text(5) name:text(50) defaultFlag:flag
    billingOptions:enum(BiMonthly|BiWeekly|Monthly|NotRecurring|Quarterly|SemiAnnual|Weekly|Yearly) _info:object""")

CURRENCY = _model("""
    id:int currencyIdentifier:text(10) name:text(50) symbol:text(10) displayIdFlag:flag displaySymbolFlag:flag
    currencyCode:ref thousandsSeparator:text(1) decimalSeparator:text(1) negativeParenthesesFlag:flag rightAlign:flag
    numberOfDecimals:int reportFormat:text _info:object""")

INVOICE = _model("""
    id:int invoiceNumber:text(15) type:enum(Agreement|CreditMemo|DownPayment|Miscellaneous|Progress|Standard)
    status:ref company:ref billToCompany:ref applyToType:enum(All|Agreement|Project|ProjectPhase|SalesOrder|Ticket)
    applyToId:int reference:text(50) date:date dueDate:date currency:ref agreementAmount:number productTotal:number
    subtotal:number total:number salesTax:number balance:number payments:number agreement:ref _info:object""")

USER_DEFINED_FIELD = _model("""
    id:int podId:int caption:text(25) sequenceNumber:int screenId:text(25) helpText:text(1000)
    fieldTypeIdentifier:enum(TextArea|Button|Currency|Date|Hyperlink|IPAddress|Checkbox|Number|Percent|Text|Password)
    entryTypeIdentifier:enum(Date|EntryField|List|Option) requiredFlag:flag displayOnScreenFlag:flag readOnlyFlag:flag
    listViewFlag:flag dateCreated:date _info:object""")

# What the server works out itself; what a client sends for these is ignored.
COMPUTED_ADDITION = frozenset(
    (  # noqa: SIM905
        "id agreementId description billedQuantity uom extPrice extCost sequenceNumber margin prorateCost proratePrice"
        " extendedProrateCost extendedProratePrice agreementStatus additionStatus _info"
    ).split()
)
COMPUTED_AGREEMENT = frozenset({"id", "agreementStatus", "_info"})
